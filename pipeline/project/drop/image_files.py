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
    *(".companion.ome", ".ome.tiff", ".ome.tif", ".ome.btf", ".ome.tf2", ".ome.tf8", ".ome.zarr"),
    *(".tiff", ".tif", ".btf", ".tf2", ".tf8", ".qptiff", ".lsm", ".stk", ".zarr", ".png", ".jpeg", ".jpg"),
    *(".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi", ".nd2", ".lif"),
)
DICOM = ".dcm"  # a folder of such files is one slide
# Formats that no library here reads
TO_CONVERT = {".vsi": "Olympus VSI", ".isyntax": "Philips iSyntax", ".i2syntax": "Philips iSyntax"}
# Of outlines drawn in QuPath or ImageJ, which can replace a label image.
ANNOTATION_SUFFIXES = (".geojson", ".roi", ".zip")
_FOLDER_SUFFIX = ".zarr"
# Folders that file servers and operating systems make, beside those that begin with a dot
_OF_SERVERS = {
    *("@eadir", "#recycle", "@recycle", "#snapshot", "~snapshot", "@recently-snapshot", "@tmp"),
    *("$recycle.bin", "system volume information", "lost+found", "__macosx"),
}
# How files that list the parts of a slide name them
_INDEXED = {".ome": r'FileName="([^"]+)"', ".vms": r"=\s*(.+\.jpg)\s*$", ".vmu": r"=\s*(.+\.ngr)\s*$"}
_LONGEST_INDEX = 2**26  # bytes of a file that lists the parts of a slide
_LONGEST_NAME = 200  # bytes of a file or folder name; file systems allow 255, names of results are longer by a suffix
_RESERVED = set("{}\\")  # in wildcards of Snakemake, and in paths
_NOT_IN_NAMES = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control, not UTF-8, ends of lines


class Refused(NamedTuple):
    """A file that cannot be a sample: its path as printable text, and why, with what to do."""

    path: Path
    reason: str


class _Found(NamedTuple):
    name: str
    path: Path
    reason: str


def sample_id(relative: str, suffixes: tuple[str, ...] = SUFFIXES) -> str | None:
    """Return the sample id of a path below the drop folder, or None without the suffix of an image."""
    lower = relative.lower()
    for suffix in suffixes:
        name = relative[: -len(suffix)]
        if lower.endswith(suffix) and name and not name.endswith("/"):
            return name
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
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        return [path.with_suffix("")]
    if suffix not in _INDEXED or not path.is_file() or path.stat().st_size > _LONGEST_INDEX:
        return []
    index = path.read_text(encoding="utf-8", errors="replace")
    names = re.findall(_INDEXED[suffix], index, flags=re.MULTILINE)
    return [path.parent / PurePosixPath(name).name for name in dict.fromkeys(names) if PurePosixPath(name).name]


def printable(text: str) -> str:
    """Return a text with control characters, line ends and invalid UTF-8 escaped."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _NOT_IN_NAMES else letter
        for letter in text
    )


def mistake_in(name: str) -> str:
    """Return what is wrong with a sample id; empty if it can be part of the names of results."""
    if not all(part.strip(".") for part in name.split("/")):
        return f"{name}: a name cannot have parts that are empty or only dots; rename it"
    if (not name.isprintable() and printable(name) != name) or not _RESERVED.isdisjoint(name):
        return f"{name}: a name cannot have braces, backslashes, control characters or invalid UTF-8; rename it"
    if (longest := max(len(os.fsencode(part)) for part in name.split("/"))) > _LONGEST_NAME:
        return f"{name}: a name of {longest} bytes, the limit is {_LONGEST_NAME}; rename it"
    return ""


def _candidates(folder: Path, suffixes: tuple[str, ...], follow_links: bool) -> Iterator[_Found]:
    """Yield everything below a folder with the name of an image, and folders that cannot be listed."""
    known = (*suffixes, DICOM, *TO_CONVERT) if set(SUFFIXES) <= set(suffixes) else suffixes
    for relative, is_file, reason in visible_files(folder, "", follow_links):
        path = folder / relative
        is_dicom = not (is_file or reason) and DICOM in known and is_dicom_folder(path)
        name = relative if is_dicom else sample_id(relative, known)
        if name is None and not reason:
            continue
        mistake = reason or _why_not_read(path) or _why_unusable(path, folder, is_file, follow_links)
        fields = _fields_of(path) if not mistake and relative.lower().endswith(_FOLDER_SUFFIX) else []
        for field, place, lost in fields:
            yield _Found(f"{name}/{field}", place, lost)
        if not fields:
            yield _Found(name or f"{relative}/", path, mistake)  # "/", since a sample may have the name of the folder


def is_dicom_folder(path: Path) -> bool:
    """Return whether a folder is a DICOM slide."""
    return path.suffix.lower() != _FOLDER_SUFFIX and path.is_dir() and bool(dicom_files(path))


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder, sorted."""
    return sorted(path for path in folder.iterdir() if _is_dicom(path.name) and not path.name.startswith("."))


def _is_dicom(name: str) -> bool:
    return name.lower().endswith(DICOM)


def _why_not_read(path: Path) -> str:
    """Return why a file of a format that is known is not read; empty if it is."""
    suffix = path.suffix.lower()
    if _is_dicom(path.name) and not path.is_dir():
        return f"{path}: a DICOM slide has several files; put those of each slide into a folder of their own"
    if suffix in TO_CONVERT:
        return (
            f"{path}: {TO_CONVERT[suffix]} is not read; convert it to OME-TIFF with QuPath, Fiji (Bio-Formats) or "
            "bfconvert, and put that here instead"
        )
    return ""


def visible_files(root: Path, below: str, follow_links: bool) -> Iterator[tuple[str, bool, str]]:
    """Yield the files below a folder of ``root``, and folders that are a slide (DICOM, Zarr) or plate.

    Each with its path below ``root``, whether it is a regular file and no link, and why it cannot be used. Hidden files
    and folders, and those that file servers make, are passed over. Paths are text, since there are many thousands.
    """
    folder = root / below
    try:
        with os.scandir(folder) as listing:
            entries = [one for one in listing if not one.name.startswith(".") and one.name.lower() not in _OF_SERVERS]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if not below:
            raise SlidemillError(f"{folder}: the folder cannot be listed: {error.strerror}; allow it") from error
        yield below, False, f"{folder}: the folder cannot be listed: {error.strerror}; allow it, or remove it"
        return
    if below and any(_is_dicom(entry.name) for entry in entries):
        yield below, False, ""
        entries = [entry for entry in entries if not _is_dicom(entry.name)]
    for entry in entries:
        relative = f"{below}/{entry.name}" if below else entry.name
        is_link = entry.is_symlink()
        is_folder = Path(entry.path).is_dir() if is_link else entry.is_dir()
        if is_folder and is_link and not follow_links:
            yield relative, False, f"{root / relative}: a link to a folder; put the folder itself there"
        elif is_folder and not entry.name.lower().endswith(_FOLDER_SUFFIX):
            yield from visible_files(root, relative, follow_links)
        else:
            yield relative, entry.is_file(follow_symlinks=False), ""


def _why_unusable(path: Path, root: Path, is_file: bool, follow_links: bool) -> str:
    is_link = not is_file and path.is_symlink()
    if is_link and not follow_links and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return f"{path}: a link to a file outside of the drop folder; put the file itself there"
    if not is_file and not path.is_file() and not path.is_dir():
        return f"{path}: a broken link, or not a regular file; remove it"
    if not os.access(path, os.R_OK):
        return f"{path}: cannot be read: permission denied; allow it (chmod)"
    return ""


def _fields_of(folder: Path) -> list[tuple[str, Path, str]]:
    """Return the fields of an OME-Zarr plate: well and field (``E08_f0``), place, and why it cannot be used.

    A well without a list of its fields is one of them. None of a single image, and of a plate whose list of wells is
    damaged: its job reports the error.
    """
    found: list[tuple[str, Path, str]] = []
    try:
        wells = [str(well["path"]) for well in read_attributes(folder)["plate"]["wells"]]
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return []
    for well in wells:
        place, name = folder / well, well.replace("/", "")
        try:
            lost = _why_not_of_plate(place, folder)
            fields = [] if lost else [str(field["path"]) for field in read_attributes(place)["well"]["images"]]
        except (OSError, AttributeError, KeyError, TypeError, ValueError):
            lost, fields = f"{place}: its list of fields is damaged or not there; copy the plate again", []
        found += [(name, place, lost)] if lost else []
        found += [
            (f"{name}_f{field.replace('/', '')}", place / field, _why_not_of_plate(place / field, folder))
            for field in fields
        ]
    return found


def _why_not_of_plate(place: Path, plate: Path) -> str:
    """Return why a folder that a plate names is not used; empty if it is there, and in the folder of the plate."""
    if not place.is_relative_to(plate) or ".." in place.relative_to(plate).parts:
        return f"{place}: {plate.name} names a path that leads out of a folder; save the plate again"
    if not place.is_dir():
        return f"{place}: {plate.name} lists it, but it is not there; copy the plate again"
    return why_not_inside(place, plate)


def why_not_inside(place: Path, folder: Path) -> str:
    """Return why a part of a slide is not read: no file or folder, or a link that leads out of ``folder``."""
    if place.exists() and not place.is_file() and not place.is_dir():
        return f"{place}: not a regular file; remove it"
    if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
        return f"{place}: a link that leads out of {folder}; put the file itself there"
    return ""


def read_attributes(folder: Path) -> dict[str, Any]:
    """Return the OME attributes of a group of zarr 2 or 3, empty where there are none; raise ValueError on bad JSON."""
    for name, place in (("zarr.json", ("attributes", "ome")), (".zattrs", ())):
        if (folder / name).is_file():
            about = read_metadata(folder / name)
            for key in place:
                about = about.get(key, {})
            if not isinstance(about, dict):
                raise ValueError(f"{name} is no JSON object; save the image again")
            return about
    return {}


def read_metadata(path: Path) -> Any:
    """Read a JSON file of a slide; raise ValueError if it is damaged, huge or nested too deeply."""
    if path.stat().st_size > _LONGEST_INDEX:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, the limit is {_LONGEST_INDEX}; save it again")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply; save the image again") from error
    except ValueError as error:
        raise ValueError(f"{path.parent.name}/{path.name} is no JSON: {error}; save the image again") from error
