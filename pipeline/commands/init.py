"""Lay out a project: its folders, and a configuration that fits the images and labels that are there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import scipy.ndimage

from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import write_text
from pipeline.project.channels import header_channels
from pipeline.project.drop.image_files import find_images
from pipeline.project.training_pairs import TrainingPair, find_pairs
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.labels import open_labels
from pipeline.slides.outlines import is_annotation, read_annotations
from pipeline.slides.slide import Slide, open_slide

_CONFIG = Path("config/config.yaml")
_MOST_IMAGES = 12  # looked at
_MOST_CLASSES = 12
_MEMORY_MB = 4000
_COLOURS = 3
_BACKGROUND = "background"
_IMAGES, _LABELS = Path(Settings().training.images), Path(Settings().training.labels)
_SLIDES, _REFERENCES = Path(Settings().slides), Path(Settings().references)


def run(
    *,
    images: Path = _IMAGES,
    labels: Path = _LABELS,
    slides: Path = _SLIDES,
) -> None:
    """Write config/config.yaml and make the folders that it names, in --directory, which is made too.

    Files that are there are looked at, and left there.

    Parameters
    ----------
    images : Path
        Folder of the training images.
    labels : Path
        Folder of their labels, with the names of the images.
    slides : Path
        Drop folder.
    """
    if _CONFIG.exists():
        raise SlidemillError(f"{_CONFIG.absolute()}: there is a project already; edit it, or name another --directory")
    for folder in (images, labels, slides, _REFERENCES):
        folder.mkdir(parents=True, exist_ok=True)
    pairs = find_pairs(images, labels)[:_MOST_IMAGES] if find_images(images) else []
    seen = [pair.image for pair in pairs] or list(find_images(slides).values())
    lines = ["# Every key, its unit and its default: config/README.md of Slidemill", f"slides: {_text(slides)}"]
    lines += _training(images, labels, pairs)
    lines += _image(seen[0]) if seen else []
    lines += ["", "models:", "  unet:", "    options: {width: 32}", "    max_steps: 2000"]
    write_text(_CONFIG, "\n".join(lines) + "\n")
    print("\n".join(lines))
    here = shlex.quote(str(Path.cwd()))
    print(f"\nwritten: {_CONFIG.absolute()}; check it, then: snakemake --cores 4 --directory {here} -n")


def _text(path: Path) -> str:
    """Return a path as YAML; JSON is YAML."""
    return json.dumps(str(path), ensure_ascii=False)


def _training(images: Path, labels: Path, pairs: list[TrainingPair]) -> list[str]:
    lines = ["", "training:", f"  images: {_text(images)}", f"  labels: {_text(labels)}"]
    if not pairs:
        return [*lines, "  kind: instances # an id per object; or classes: a value per class", *_classes(1)]
    found = [_parts(pair) for pair in pairs if not is_annotation(pair.labels)]
    names = _classes_of_outlines([pair.labels for pair in pairs if is_annotation(pair.labels)])
    kind, why, values = what_labels_hold([parts for parts in found if parts])
    if len(names) > 2 and not found:
        kind, why, values = "classes", f"outlines of {len(names) - 1} classes", list(range(len(names)))
    lines.append(f"  kind: {kind} # {why}")
    if kind == "classes" and values != list(range(len(values))):
        lines.append(f"  values: {values}")
    count = len(values) if kind == "classes" else 2
    if len(names) == count:
        return [*lines, "", f"classes: {json.dumps(names, ensure_ascii=False)} # the first is background"]
    return lines + _classes(count - 1)


def _classes_of_outlines(files: list[Path]) -> list[str]:
    """Return the classes of QuPath after that of the background; none if no outline has one.

    The names of ROIs may be anything.
    """
    areas = [
        area
        for path in files
        if path.suffix.lower() == ".geojson"
        for area in read_annotations(path, memory_mb=_MEMORY_MB).areas
    ]
    names = sorted({area.name for area in areas if area.name})
    of_background = [name for name in names if name.lower() == _BACKGROUND][:1] or [_BACKGROUND]
    return [*of_background, *(name for name in names if name not in of_background)] if names else []


def _classes(count: int) -> list[str]:
    names = ["object"] if count == 1 else [f"class{number}" for number in range(1, count + 1)]
    return ["", f"classes: [{_BACKGROUND}, {', '.join(names)}] # give them names, the first is background"]


def _parts(pair: TrainingPair) -> dict[int, int]:
    """Return the first values of a label image, enough to tell ids from classes, each with its connected parts."""
    config = LabelConfig(classes=[_BACKGROUND, "object"], kind="instances")
    with (
        _look(pair.image) as image,
        open_labels(pair.labels, config, memory_mb=_MEMORY_MB, like=image) as labels,
    ):
        pixels = labels.read_all()[0]
    values = np.unique(pixels[pixels >= 0])[: 2 * _MOST_CLASSES].tolist()
    return {int(value): int(scipy.ndimage.label(pixels == value)[1]) for value in values}


def what_labels_hold(found: list[dict[int, int]]) -> tuple[str, str, list[int]]:
    """Return the kind of labels, why, and all their values, from the values of each image and their connected parts.

    Values above 0 are classes if they are few, and most have several connected parts in an image or are in every image;
    an object has one part, and ids differ from image to image.
    """
    values = sorted({value for one in found for value in one})
    everything = [value for value in values if value]
    if len(everything) == 1:
        return "instances", f"one value ({everything[0]}): each connected part is an object", values
    if not everything or len(everything) > _MOST_CLASSES:
        return "instances", "each object has a value of its own", values
    parts = [count for one in found for value, count in one.items() if value]
    in_every_image = len(found) > 1 and all(sorted(one.keys() - {0}) == everything for one in found)
    if in_every_image or float(np.mean([count > 1 for count in parts])) > 0.5:
        return "classes", f"the same {len(everything)} values in several parts or in every image", values
    return "instances", "each value is one connected part", values


def _image(path: Path) -> list[str]:
    """Return the section on what is read of images, with what one of them has."""
    with _look(path) as slide:
        size_um, image = slide.pixel_size_um, slide.choice.image if slide.choice else None
    lines = []
    if image and image.channels > 1 and header_channels(path) != _COLOURS:
        lines.append(f"  channels: [0] # of {', '.join(image.channel_names) or image.channels}")
    if image and image.length("Z") > 1:
        lines.append("  z: max # maximum projection, or the number of a plane")
    if size_um is None:
        lines.append("  fallback_pixel_size_um: null # the files state no pixel size: areas are in pixels without it")
    return ["", "image:", *lines] if lines else []


@contextmanager
def _look(path: Path) -> Iterator[Slide]:
    """Open an image with its first channel; of a stack, its projection."""
    with ExitStack() as stack:
        try:
            slide = stack.enter_context(open_slide(path, memory_mb=_MEMORY_MB, view=ImageConfig()))
        except SlideError:
            slide = stack.enter_context(open_slide(path, memory_mb=_MEMORY_MB, view=ImageConfig(z="max")))
        yield slide  # not in the block above: what its user raises is not about opening it
