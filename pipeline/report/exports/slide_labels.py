"""Object ids as a label image inside of slides that are OME-Zarr, where viewers find them with the image.

Only files below ``labels`` of a slide are written, in the version of its own metadata (OME-Zarr 0.4 or 0.5:
https://ngff.openmicroscopy.org/0.5/#labels-md), and none that is there is changed but the list of label images. What is
below ``labels`` does not count in the version of a slide, so no result becomes out of date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlidemillError
from pipeline.base.files import replacing, write_text
from pipeline.masks.mask_file import open_mask
from pipeline.masks.ome_zarr import copy_level
from pipeline.project.drop.drop_folder import last_run
from pipeline.project.drop.image_files import read_attributes, read_metadata
from pipeline.project.stage_settings import view_of
from pipeline.report.exports.ome_zarr import levels_of
from pipeline.report.exports.selection import Selection, refuse_stacks
from pipeline.settings.schema import ImageConfig
from pipeline.slides.slide import open_slide

_TO = "--to slide-labels"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def write_slide_labels(output: Path, chosen: Selection) -> None:
    """Write the object ids of each sample into ``labels/NAME`` of its slide; ``output`` is NAME.

    Raises
    ------
    SlidemillError
        If a slide is no OME-Zarr image of one plane, or has a label image of this name; then nothing is written.
    """
    refuse_stacks(chosen, "slide-labels")
    name = str(output)
    if not _NAME.fullmatch(name):
        raise SlidemillError(f"--output {name}: with {_TO} the name of the label image: letters, digits, dots, - and _")
    targets = [_Target.of(Path(outcome.slide), name) for outcome in chosen.outcomes]
    samples, memory_mb = last_run().samples, chosen.settings.tiling.memory_mb
    masks = [Path(str(outcome.mask)) for outcome in chosen.outcomes]
    for mask in masks:
        with open_mask(mask, memory_mb=memory_mb) as images:
            if images.instances is None:
                raise SlidemillError(f"{_TO}: {mask} has no object ids (masks.instances: none)")
    for outcome, target, mask in zip(chosen.outcomes, targets, masks, strict=True):
        view = view_of(chosen.settings.image, samples[outcome.sample].row)
        with open_slide(target.slide, memory_mb=memory_mb, view=view) as slide:
            step = slide.step
        with open_slide(mask, memory_mb=memory_mb, view=ImageConfig(series="instances")) as labels:
            target.write(name, levels_of(labels), step)


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A slide that a label image is written into.

    Attributes
    ----------
    attributes : dict
        OME attributes of the image.
    zarr_format : int
        2 for OME-Zarr 0.4 and older, else 3.
    """

    slide: Path
    attributes: dict[str, Any]
    zarr_format: Literal[2, 3]

    @classmethod
    def of(cls, slide: Path, name: str) -> _Target:
        """Look at a slide; raise SlidemillError if it cannot take a label image of this name."""
        attributes = read_attributes(slide) if slide.is_dir() else {}
        if "multiscales" not in attributes:
            raise SlidemillError(f"{_TO}: {slide} is not one OME-Zarr image; use --to ome-zarr")
        image = zarr.open_array(slide / str(attributes["multiscales"][0]["datasets"][0]["path"]), mode="r")
        axes = [one if isinstance(one, dict) else {"name": one} for one in attributes["multiscales"][0].get("axes", ())]
        if any(axis["name"] in ("z", "t") and side > 1 for axis, side in zip(axes, image.shape, strict=False)):
            raise SlidemillError(f"{_TO}: {slide} is a stack, its mask is of one plane; use --to ome-zarr")
        target = cls(slide=slide, attributes=attributes, zarr_format=image.metadata.zarr_format)
        if (slide / "labels" / name).exists() or name in target.listed():
            raise SlidemillError(f"{slide / 'labels' / name}: already exists; remove it or choose another --output")
        return target

    def listed(self) -> list[str]:
        """Return the names of the label images that the slide has."""
        return list(read_attributes(self.slide / "labels").get("labels", ()))

    def write(self, name: str, levels: Sequence[Array], step: tuple[float, float]) -> None:
        """Write a label image whose pixels are ``step`` pixels of the image wide, then list it."""
        about = {"multiscales": [self._multiscale(name, step)], "image-label": {"source": {"image": "../../"}}}
        count = len(self.attributes["multiscales"][0]["datasets"])  # labels must have as many levels as the image
        with replacing(self.slide / "labels" / name) as temporary:
            group = zarr.create_group(temporary, zarr_format=self.zarr_format, attributes=self._versioned(about))
            for index, level in zip(range(count), _halved(levels), strict=False):
                copy_level(level, group, str(index))
        self._list([*self.listed(), name])

    def _versioned(self, about: dict[str, Any]) -> dict[str, Any]:
        """Return attributes of a group as the version of the slide has them."""
        if self.zarr_format == 3:
            return {"ome": {"version": self.attributes.get("version", "0.5"), **about}}
        version = self.attributes["multiscales"][0].get("version", "0.4")
        return {name: _with_version(value, version) for name, value in about.items()}

    def _multiscale(self, name: str, step: tuple[float, float]) -> dict[str, Any]:
        image = self.attributes["multiscales"][0]
        axes = [one if isinstance(one, dict) else {"name": one, "type": "space"} for one in image.get("axes", "yx")]
        scale, place = _place(image, [axes.index(axis) for axis in axes if axis["name"] in ("y", "x")], len(axes))
        # The centre of a pixel of the mask, which lies between pixels of the image if it is wider
        shift = (place + scale * (np.array(step) - 1) / 2).tolist()
        datasets = [
            {
                "path": str(index),
                "coordinateTransformations": [
                    {"type": "scale", "scale": (scale * step * 2**index).tolist()},
                    *([{"type": "translation", "translation": shift}] if any(shift) else []),
                ],
            }
            for index in range(len(image["datasets"]))
        ]
        return {"name": name, "axes": [axis for axis in axes if axis["name"] in ("y", "x")], "datasets": datasets}

    def _list(self, names: list[str]) -> None:
        """Write the list of label images; other attributes of the group stay."""
        file = self.slide / "labels" / ("zarr.json" if self.zarr_format == 3 else ".zattrs")
        if self.zarr_format == 3:
            about: Any = read_metadata(file) if file.exists() else {"zarr_format": 3, "node_type": "group"}
            ome = about.setdefault("attributes", {}).setdefault("ome", {"version": "0.5"})
        else:
            about = ome = read_metadata(file) if file.exists() else {}
            if not (group := file.with_name(".zgroup")).exists():
                write_text(group, json.dumps({"zarr_format": 2}))
        ome["labels"] = names
        write_text(file, json.dumps(about, indent=2))


def _with_version(value: Any, version: str) -> Any:
    return [_with_version(one, version) for one in value] if isinstance(value, list) else {"version": version, **value}


def _place(image: dict[str, Any], of_yx: list[int], axes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and translation of the rows and columns of the finest level, in the units of the image."""
    scale, place = np.ones(axes), np.zeros(axes)
    of_level = image["datasets"][0].get("coordinateTransformations", ())
    for one in [*of_level, *image.get("coordinateTransformations", ())]:
        if one["type"] == "scale":
            scale, place = scale * one["scale"], place * one["scale"]
        elif one["type"] == "translation":
            place = place + one["translation"]
    return scale[of_yx], place[of_yx]


def _halved(levels: Sequence[Array]) -> Any:
    """Yield levels, then more, each with every second row and column of the one before."""
    yield from levels
    last = levels[-1]
    while True:
        last = _half(last)
        yield last


def _half(level: Array) -> LazyArray:
    rows, columns = level.shape

    def read(*region: slice) -> NDArray[Any]:
        doubled = (slice(2 * one.start, min(2 * one.stop, side)) for one, side in zip(region, level.shape, strict=True))
        return np.asarray(level[tuple(doubled)])[::2, ::2]

    return LazyArray((-(-rows // 2), -(-columns // 2)), level.dtype, read)
