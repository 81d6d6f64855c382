"""The images below a folder, by sample id: their path below the folder without suffix.

Only names are looked at, except for files that list the parts of a slide and the fields of a plate. What cannot be a
sample is returned with the reason, so that a bad name costs one sample.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pipeline.base.errors import SlidemillError

# Of slides. A longer suffix comes before the one that it ends with.
SUFFIXES = (
    *(".companion.ome", ".ome.tiff", ".ome.tif", ".ome.zarr", ".tiff", ".tif", ".zarr", ".png", ".jpeg", ".jpg"),
    *(".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi", ".nd2", ".lif"),
)
# Of outlines drawn in QuPath or ImageJ, which can replace a label image.
ANNOTATION_SUFFIXES = (".geojson", ".roi", ".zip")
_FOLDER_SUFFIX = ".zarr"
_LONGEST_INDEX = 2**26  # bytes of a file that lists the parts of a slide
_LONGEST_NAME = 200  # bytes of a file or folder name; file systems allow 255, names of results are longer by a suffix
_NOT_IN_NAMES = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control, not UTF-8, ends of lines


class Refused(NamedTuple):
    """A file that cannot be a sample: its path as printable text, and why, with what to do."""

    path: Path
    reason: str


class _Found(NamedTuple):
    name: str
    path: Path
    reason: str


def sample_id(relative: PurePosixPath, suffixes: tuple[str, ...] = SUFFIXES) -> str | None:
    """Return the sample id of a path below the drop folder, or None without the suffix of an image."""
    name = str(relative)
    for suffix in suffixes:
        if name.lower().endswith(suffix) and len(relative.name) > len(suffix):
            return name[: -len(suffix)]
    return None


def find_images(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """Return the images below ``folder`` by sample id, sorted; links are followed.

    Raises
    ------
    SlidemillError
        If one of them cannot be a sample, see :func:`list_images`.
    """
    images, refused = list_images(folder, suffixes, follow_links=True)
    for _, reason in refused.values():
        raise SlidemillError(reason)
    return images


def list_images(
    folder: Path, suffixes: tuple[str, ...] = SUFFIXES, *, follow_links: bool
) -> tuple[dict[str, Path], dict[str, Refused]]:
    """Return the images below ``folder`` by sample id, sorted, and what cannot be a sample, by a printable id.

    Refused are two files with the same id, names that no file of results can have, unreadable files, and, unless
    ``follow_links``, links to folders and links out of ``folder``. Hidden files and folders are ignored. A missing
    folder has no images.
    """
    by_name: dict[str, list[_Found]] = defaultdict(list)
    candidates = sorted(_candidates(folder, suffixes, follow_links))
    parts = {part for found in candidates if not found.reason for part in parts_of(found.path)}
    for found in candidates:
        if not parts or (found.path not in parts and parts.isdisjoint(found.path.parents)):
            by_name[found.name].append(found)
    images, refused = {}, {}
    for name, (first, *others) in by_name.items():
        reason = first.reason or mistake_in(name)
        if others:
            reason = f"{others[0].path} and {first.path} would be the same sample {name!r}; rename one of them"
        if reason:
            refused[printable(name)] = Refused(Path(printable(str(first.path))), printable(reason))
        else:
            images[name] = first.path
    return images, refused


def parts_of(path: Path) -> list[Path]:
    """Return the files and folders beside a slide that belong to it; most slides have none.

    These are the TIFF files that a ``.companion.ome`` lists, the JPEG files that a ``.vms`` lists, and the folder of a
    ``.mrxs``.
    """
    patterns = {".ome": r'FileName="([^"]+)"', ".vms": r"=\s*(.+\.jpg)\s*$", ".vmu": r"=\s*(.+\.ngr)\s*$"}
    if path.suffix.lower() == ".mrxs":
        return [path.with_suffix("")]
    if path.suffix.lower() not in patterns or not path.is_file() or path.stat().st_size > _LONGEST_INDEX:
        return []
    index = path.read_text(encoding="utf-8", errors="replace")
    names = re.findall(patterns[path.suffix.lower()], index, flags=re.MULTILINE)
    return [path.parent / PurePosixPath(name).name for name in dict.fromkeys(names) if PurePosixPath(name).name]


def printable(text: str) -> str:
    """Return a text with control characters, line ends and invalid UTF-8 escaped."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _NOT_IN_NAMES else letter
        for letter in text
    )


def mistake_in(name: str) -> str:
    """Return what is wrong with a sample id; empty if it can be part of the names of results."""
    if any(letter in "{}\\" or unicodedata.category(letter) in _NOT_IN_NAMES for letter in name):
        return f"{name}: a name cannot have braces, backslashes, control characters or invalid UTF-8; rename it"
    if (longest := max(len(os.fsencode(part)) for part in name.split("/"))) > _LONGEST_NAME:
        return f"{name}: a name of {longest} bytes, the limit is {_LONGEST_NAME}; rename it"
    return ""


def _candidates(folder: Path, suffixes: tuple[str, ...], follow_links: bool) -> Iterator[_Found]:
    """Yield everything below a folder with the name of an image, and folders that cannot be listed."""
    for path, reason in _visible(folder, folder, follow_links):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        name = sample_id(relative, suffixes)
        if name is None and not reason:
            continue
        mistake = reason or _why_unusable(path, folder, follow_links)
        fields = _fields_of(path) if not mistake and path.name.lower().endswith(_FOLDER_SUFFIX) else {}
        for field, place in fields.items():
            yield _Found(f"{name}/{field}", place, "")
        if not fields:
            yield _Found(name or f"{relative}/", path, mistake)  # "/", since a sample may have the name of the folder


def _visible(folder: Path, root: Path, follow_links: bool) -> Iterator[tuple[Path, str]]:
    """Yield the files below a folder, and folders that are a slide or plate, each with why it cannot be used."""
    try:
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if folder == root:
            raise SlidemillError(f"{folder}: the folder cannot be listed: {error.strerror}; allow it") from error
        yield folder, f"{folder}: the folder cannot be listed: {error.strerror}; allow it, or remove it"
        return
    for entry in entries:
        path = folder / entry.name
        is_link = entry.is_symlink()
        is_folder = path.is_dir() if is_link else entry.is_dir()
        if is_folder and is_link and not follow_links:
            yield path, f"{path}: a link to a folder; put the folder itself there"
        elif is_folder and not entry.name.lower().endswith(_FOLDER_SUFFIX):
            yield from _visible(path, root, follow_links)
        else:
            yield path, ""


def _why_unusable(path: Path, root: Path, follow_links: bool) -> str:
    leads_to = Path(os.path.realpath(path)) if path.is_symlink() and not follow_links else None
    if leads_to and not leads_to.is_relative_to(os.path.realpath(root)):
        return f"{path}: a link to a file outside of the drop folder; put the file itself there"
    if not path.is_dir() and not path.is_file():
        return f"{path}: a broken link, or not a regular file; remove it"
    if not os.access(path, os.R_OK):
        return f"{path}: cannot be read: permission denied; allow it (chmod)"
    return ""


def _fields_of(folder: Path) -> dict[str, Path]:
    """Return the fields of an OME-Zarr plate by well and field (``E08_f0``); none if it is a single image.

    A damaged plate counts as one slide, so that its job reports the error.
    """
    try:
        wells = read_attributes(folder)["plate"]["wells"]
        return {
            f"{str(well['path']).replace('/', '')}_f{field['path']}": _inside(folder, well["path"], field["path"])
            for well in wells
            for field in read_attributes(_inside(folder, well["path"]))["well"]["images"]
        }
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _inside(folder: Path, *names: str) -> Path:
    place = folder.joinpath(*names)
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{place} is outside {folder}")
    return place


def read_attributes(folder: Path) -> dict[str, Any]:
    """Return the OME attributes of a group of zarr 2 or 3, empty where there are none; raise ValueError on bad JSON."""
    for name, place in (("zarr.json", ("attributes", "ome")), (".zattrs", ())):
        if (folder / name).is_file():
            about = json.loads((folder / name).read_text(encoding="utf-8"))
            for key in place:
                about = about.get(key, {})
            if not isinstance(about, dict):
                raise ValueError(f"{name} is no JSON object; save the image again")
            return about
    return {}
