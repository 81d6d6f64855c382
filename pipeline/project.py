"""A project folder: which samples, batches and training pairs are in it, and where their files go.

The Snakefile and the stages that work on a whole set ask here, so that both see the same files. Names are enough, but
for the lists of files that make one slide, and of the fields of a plate. Samples are data: an id is the path of a slide
below the drop folder, without its suffix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import SlidemillError

# Where the results of a sample are; the rules under workflow/ write the same patterns (tested).
PLAN = "results/plans/{model}/{sample}.json"
MASK = "results/masks/{model}/{sample}.ome.tiff"
METRICS = "results/metrics/{model}/{sample}.csv"
OBJECTS = "results/objects/{model}/{sample}.csv"
ANNOTATIONS = "results/objects/{model}/{sample}.geojson"
APPEARANCE = "results/appearance/{sample}.json"
HISTORY = "results/models/{model}/history.csv"
WEIGHTS = "results/models/{model}/model.safetensors"
CARD = "results/models/{model}/model.json"
VALIDATION = "results/validation/{model}.csv"
SPEED = "results/predictions/{model}/{batch}.json"
WEIGH_LOG = "logs/weigh/{model}.log"
TRAIN_LOG = "logs/train/{model}.log"
TILE_LOG = "logs/tile/{model}/{sample}.log"
COMBINE_LOG = "logs/combine/{model}.log"
PREDICT_LOG = "logs/predict/{model}/{batch}.log"
STITCH_LOG = "logs/stitch/{model}/{sample}.log"
OBJECTS_LOG = "logs/objects/{model}/{sample}.log"
EVALUATE_LOG = "logs/evaluate/{model}/{sample}.log"

# What can be a slide. A longer suffix comes before the one that it ends with.
SUFFIXES = (
    *(".companion.ome", ".ome.tiff", ".ome.tif", ".ome.zarr", ".tiff", ".tif", ".zarr", ".png", ".jpeg", ".jpg"),
    *(".svs", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi", ".nd2", ".lif"),
)
# What else can hold labels: outlines drawn in QuPath or ImageJ.
ANNOTATION_SUFFIXES = (".geojson", ".roi", ".zip")
_FOLDER_SUFFIX = ".zarr"
_TOLD = 5  # problems told at once
_LONGEST_INDEX = 2**26  # bytes of a file that lists the files of a slide


def sample_id(relative: PurePosixPath, suffixes: tuple[str, ...] = SUFFIXES) -> str | None:
    """Return the sample id of a path below the drop folder, or None where the suffix is not that of an image."""
    name = str(relative)
    for suffix in suffixes:
        if name.lower().endswith(suffix) and len(relative.name) > len(suffix):
            return name[: -len(suffix)]
    return None


def find_labels(folder: Path) -> dict[str, Path]:
    """Return the label images and annotation files below ``folder`` by sample id, as :func:`find_images` does."""
    return find_images(folder, SUFFIXES + ANNOTATION_SUFFIXES)


def find_images(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, Path]:
    """Return the images below ``folder`` by sample id, sorted. Hidden files and folders are passed over.

    Raises
    ------
    SlidemillError
        If two files would have the same id, or a name cannot be part of a file name of results.
    """
    found: dict[str, Path] = {}
    candidates = sorted(_candidates(folder, suffixes))
    parts = {part for _, path in candidates for part in parts_of(path)}
    for name, path in candidates:
        if path in parts or not parts.isdisjoint(path.parents):
            continue
        if any(character in name for character in "{}\n\r\t\\"):
            raise SlidemillError(
                f"{str(path)!r}: braces, backslashes and control characters cannot be in a name; rename it"
            )
        if name in found:
            raise SlidemillError(f"{path} and {found[name]} would be the same sample {name!r}; rename one of them")
        found[name] = path
    return found


def parts_of(path: Path) -> list[Path]:
    """Return the files and folders beside a slide that belong to it and are no slides of their own; most have none.

    Those are the TIFF files that a ``.companion.ome`` names, the JPEG files that a ``.vms`` names, and the folder
    of the same name of a ``.mrxs``.
    """
    patterns = {".ome": r'FileName="([^"]+)"', ".vms": r"=\s*(.+\.jpg)\s*$", ".vmu": r"=\s*(.+\.ngr)\s*$"}
    if path.suffix.lower() == ".mrxs":
        return [path.with_suffix("")]
    if path.suffix.lower() not in patterns or not path.is_file() or path.stat().st_size > _LONGEST_INDEX:
        return []
    index = path.read_text(encoding="utf-8", errors="replace")
    names = re.findall(patterns[path.suffix.lower()], index, flags=re.MULTILINE)
    return [path.parent / PurePosixPath(name).name for name in dict.fromkeys(names)]


def _candidates(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield what has the name of an image below a folder, with its sample id."""
    for path in _visible(folder):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        name = sample_id(relative, suffixes)
        fields = _fields_of(path) if path.is_dir() else {}
        for field, place in fields.items():
            yield f"{name}/{field}", place
        if name is not None and not fields:
            yield name, path


def _visible(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, and the folders that are one slide or plate each."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.name.lower().endswith(_FOLDER_SUFFIX):
            yield from _visible(path)
        else:
            yield path


def _fields_of(folder: Path) -> dict[str, Path]:
    """Return the fields of an OME-Zarr plate by well and field (``E08_f0``); none where it is another image.

    What is damaged has no fields here, and is one slide, so that its job says what is wrong with it.
    """
    try:
        wells = _attributes(folder)["plate"]["wells"]
        return {
            f"{str(well['path']).replace('/', '')}_f{field['path']}": _inside(folder, well["path"], field["path"])
            for well in wells
            for field in _attributes(_inside(folder, well["path"]))["well"]["images"]
        }
    except (OSError, KeyError, TypeError, ValueError):
        return {}


def _inside(folder: Path, *names: str) -> Path:
    place = folder.joinpath(*names)
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{place} is outside {folder}")
    return place


def _attributes(folder: Path) -> Any:
    """Return the OME attributes of a zarr group, of zarr 3 or 2."""
    if (folder / "zarr.json").is_file():
        return json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]["ome"]
    return json.loads((folder / ".zattrs").read_text(encoding="utf-8"))


def batch_of(sample: str) -> str:
    """Return the batch of a sample: the folder it was dropped in, or itself where it was dropped alone."""
    parent = str(PurePosixPath(sample).parent)
    return sample if parent == "." else parent


@dataclass(frozen=True, kw_only=True)
class TrainingPair:
    """A training image and its labels (``name`` is their common path below the two folders, without suffix)."""

    name: str
    image: Path
    labels: Path


def find_pairs(images: Path, labels: Path) -> list[TrainingPair]:
    """Return the training pairs, sorted by name.

    Raises
    ------
    SlidemillError
        If there is no pair, or images have no labels.
    """
    image_of, label_of = find_images(images), find_labels(labels)
    if missing := [name for name in image_of if name not in label_of]:
        names = ", ".join(missing[:_TOLD]) + (", ..." if len(missing) > _TOLD else "")
        others = f"; {len(missing)} of {len(image_of)} images have none: {names}" if len(missing) > 1 else ""
        raise SlidemillError(
            f"{image_of[missing[0]]}: no label image {missing[0]}.tif or .png in {labels}, nor outlines "
            f"(.geojson, .roi, .zip); add it, or remove the image{others}"
        )
    pairs = [TrainingPair(name=name, image=image, labels=label_of[name]) for name, image in image_of.items()]
    if not pairs:
        raise SlidemillError(
            f"no training images in {images} (suffixes: {', '.join(SUFFIXES)}); "
            "add annotated images, or configure a checkpoint"
        )
    return pairs
