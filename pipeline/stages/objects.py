"""List the objects of the masks of one batch: a table, polygons, sums per region and small pictures for each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base import paths
from pipeline.base.arrays import Array, LazyArray
from pipeline.base.errors import SlideError
from pipeline.base.files import provenance, replacing, sha256
from pipeline.masks.components import find_objects
from pipeline.masks.mask_file import REMAKE, Mask, open_mask
from pipeline.masks.measurements.columns import Columns, columns_of
from pipeline.masks.measurements.dictionary import SCORE, Measurement, measurements
from pipeline.masks.measurements.pixels import measure_pixels
from pipeline.masks.measurements.rings import measure_rings
from pipeline.masks.object_table import ObjectTable, measure_objects, trace_objects
from pipeline.masks.qupath_geojson import features, write_features
from pipeline.masks.region_table import Members, find_members, region_table, regions_of_objects
from pipeline.project.jobs.batch_job import Made, Task, batch_job
from pipeline.project.stage_settings import view_of
from pipeline.report.histograms import histograms_of_sample
from pipeline.report.pictures import picture_shape, pictures_of_mask, write_pictures
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import ObjectsConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.planes import Plane
from pipeline.slides.regions import Regions, read_regions
from pipeline.slides.slide import Slide, open_slide, planes_of

RGB = (0, 1, 2)


def run(*, model: str, batch: str, threads: int, memory_mb: int, config: ObjectsConfig) -> None:
    """Write the objects of the masks of one batch; docs/contracts.md describes columns and properties.

    Parameters
    ----------
    model : str
        Name of the network in the configuration; with the sample, it determines the ids of the polygons.
    batch : str
        Batch of the run, one of those in results/slides.json.
    threads : int
        CPU threads that the job may use.
    memory_mb : int
        Largest piece of an image to hold, in MB.
    config : ObjectsConfig
        Classes, how slides are read, and what is measured.
    """
    with batch_job("objects", config, model=model, batch=batch) as job:
        job.work_through(partial(_list_objects, config=config), threads=threads, memory_mb=memory_mb)


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """What was found on one plane of a slide, or on all of it; ``pictures`` are drawn of one plane only."""

    areas_px: NDArray[np.int64]
    classes: NDArray[np.uint8]
    class_px: NDArray[np.int64]
    regions: list[str]
    warnings: tuple[str, ...]
    pixel_size_um: PixelSize | None
    shape: tuple[int, int]
    pictures: dict[str, bytes]
    histograms: dict[str, Any]


def _list_objects(task: Task, *, config: ObjectsConfig) -> Made:
    view = view_of(config.image, task.slide.row)
    view = view.model_copy(update={"channels": list(dict.fromkeys(view.channels))})
    if wrong := config.measurements.unknown_channel(view.channels):
        raise SlideError(f"{task.slide.slide}: {wrong}")
    planes = planes_of(Path(task.slide.slide), view, memory_mb=task.memory_mb)
    table, annotations, sums = (task.path(path) for path in (paths.OBJECTS, paths.ANNOTATIONS, paths.REGIONS))
    with (
        replacing(table) as table_file,
        replacing(annotations) as annotations_file,
        replacing(sums) as sums_file,
    ):
        listed: list[_Listed] = []
        each = (
            _list_plane(plane, task, config, table_file, sums_file, listed, drawn=number == len(planes) // 2)
            for number, plane in enumerate(planes)
        )
        made_from = {"mask": task.before.found["mask_sha256"] if task.before else ""}
        made_from |= {"regions": sha256(Path(task.slide.regions))} if task.slide.regions else {}
        found = chain.from_iterable(each)  # one plane after the other, as they are written
        write_features(annotations_file, found, provenance("objects", config, **made_from))
        if not sums_file.is_file():
            raise SlideError(f"{task.slide.regions}: holds no region on a segmented plane; draw one, or remove it")
    (drawn,) = (one.pictures for one in listed if one.pictures)
    pictures = write_pictures(drawn, model=task.model, sample=task.sample)
    return Made(files=[table, annotations, sums, *pictures], found=_summary(task, planes, listed, len(config.classes)))


def _list_plane(
    plane: Plane, task: Task, config: ObjectsConfig, table: Path, sums: Path, listed: list[_Listed], *, drawn: bool
) -> Iterator[dict[str, Any]]:
    """Append the rows of a plane to the tables, and what was found to ``listed``; yield its features."""
    view, before = plane.view, sum(len(one.areas_px) for one in listed)
    with (
        open_slide(Path(task.slide.slide), memory_mb=task.memory_mb, view=view) as image,
        _with_colours(image, view, task) if "stains" in config.measurements.groups else nullcontext(image) as source,
        open_mask(task.path(paths.MASK), memory_mb=task.memory_mb, plane=plane) as labels,
        tempfile.TemporaryDirectory(dir=table.parent) as scratch,
    ):
        instances = _numbered_from_1(labels.instances, before)
        if instances is None:
            instances, _ = find_objects(labels.classes, scratch=Path(scratch))
        objects, size_um = _measure(image, labels, instances), labels.slide.pixel_size_um
        regions = _regions_of(task, image, plane)
        members = _find_members(labels, objects, regions, len(config.classes))
        wanted = measurements(config.measurements, config.classes, view.channels, list(plane.place))
        known = {axis: np.full(len(objects.ids), number) for axis, number in plane.place.items()}
        known["regions"] = regions_of_objects(members, len(objects.ids))
        columns = _columns(wanted, instances, objects, source, known, config=config, view=view, size_um=size_um)
        columns["id"] = columns["id"] + before
        scores = _scores_of(task, columns["id"])
        columns, wanted = columns | scores, wanted + [SCORE] * len(scores)
        _rows(columns, wanted).to_csv(table, mode="a", header=not listed, index=False)
        if members.names:
            of_regions = region_table(members, columns, config.classes, size_um)
            for axis, number in plane.place.items():
                of_regions.insert(0, axis, number)
            of_regions.to_csv(sums, mode="a", header=not sums.is_file(), index=False)
        outlines = trace_objects(instances, objects)
        pictures, histograms = _draw(image, labels, instances, columns, len(config.classes)) if drawn else ({}, {})
        yield from features(
            f"{task.model}/{task.sample}", objects, columns, wanted, outlines, image.step, plane.in_file
        )
        listed.append(
            _Listed(
                areas_px=objects.areas_px,
                classes=objects.classes,
                class_px=members.class_px,
                regions=members.names,
                warnings=(*regions.warnings, *_without_pixels(members)) if regions else (),
                pixel_size_um=size_um,
                shape=image.shape,
                pictures=pictures,
                histograms=histograms,
            )
        )


def _draw(
    image: Slide, mask: Mask, instances: Array, columns: Columns, num_classes: int
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the pictures of a slide by their names, and the histograms whose objects they mark."""
    pictures = pictures_of_mask(image, mask.slide, instances, num_classes=num_classes)
    histograms, marks = histograms_of_sample(columns, image.shape)
    return pictures | {"marks": marks}, histograms


def _without_pixels(members: Members) -> tuple[str, ...]:
    """Return a warning about regions that are so small, or so narrow, that their area is 0."""
    empty = [name for name, pixels in zip(members.names, members.region_px, strict=True) if not pixels.any()]
    more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    return (f"no pixel has its centre in {empty[0]!r}{more}",) if empty else ()


def _numbered_from_1(instances: Array | None, before: int) -> Array | None:
    """Return the object ids of a plane without those of the planes ``before`` it, which come first."""
    if instances is None or not before:
        return instances

    def read(*key: Any) -> NDArray[Any]:
        ids = np.asarray(instances[key])
        return np.where(ids > 0, ids - ids.dtype.type(before), 0)

    return LazyArray(instances.shape, instances.dtype, read)


def _columns(
    listed: Sequence[Measurement],
    instances: Array,
    objects: ObjectTable,
    source: Slide,
    known: Columns,
    *,
    config: ObjectsConfig,
    view: ImageConfig,
    size_um: PixelSize | None,
) -> Columns:
    """Measure the pixels of objects and of the rings around them, and return the columns of the table."""
    groups = config.measurements.groups
    pixels = measure_pixels(instances, objects, source, groups)
    measure = partial(measure_rings, instances, objects, source, pixel_size_um=size_um, stains="stains" in groups)
    rings = {name: measure(width_um=one.expand_um) for name, one in config.measurements.compartments.items()}
    return columns_of(
        listed, objects, pixels, known, rings=rings, config=config, channels=view.channels, pixel_size_um=size_um
    )


def _rows(columns: Columns, wanted: Sequence[Measurement]) -> pd.DataFrame:
    """Return the table of objects; whole numbers that some objects lack are whole in it."""
    with_gaps = [one.column for one in wanted if one.is_whole and columns[one.column].dtype.kind == "f"]
    return pd.DataFrame(columns | {name: pd.array(columns[name], dtype="Int64") for name in with_gaps})


def _summary(task: Task, planes: list[Plane], listed: list[_Listed], num_classes: int) -> dict[str, Any]:
    """Return what the report says of the objects of a slide without reading their table."""
    areas = np.concatenate([one.areas_px for one in listed])
    classes = np.concatenate([one.classes for one in listed])
    size_um, shown = listed[0].pixel_size_um, planes[len(planes) // 2].place
    warnings = dict.fromkeys(warning for one in listed for warning in one.warnings)
    return {
        "objects": len(areas),
        "median_area_px": _median(areas),
        "area_spread": float(np.log2(areas).std()) if len(areas) else None,
        "class_objects": np.bincount(classes, minlength=num_classes).tolist(),
        "class_pixels": np.sum([one.class_px for one in listed], axis=0).tolist(),
        "class_median_area_px": [_median(areas[classes == number]) for number in range(num_classes)],
        "pixel_size_um": list(size_um) if size_um else None,
        "picture_px": list(picture_shape(listed[0].shape)),
        "regions": len({name for one in listed for name in one.regions}) if task.slide.regions else 0,
        "warnings": [f"its regions: {warning}" for warning in warnings],
        **listed[len(planes) // 2].histograms,
    } | ({"picture_plane": shown, "planes": len(planes)} if shown else {})


@contextmanager
def _with_colours(image: Slide, view: ImageConfig, task: Task) -> Iterator[Slide]:
    """Open the slide with red, green and blue after its channels, for stains."""
    is_rgb = image.choice is not None and image.choice.image.length("S") >= len(RGB)
    dtype = image.levels[0].dtype
    if not is_rgb or dtype not in (np.uint8, np.uint16):
        raise SlideError(
            f"{image.path}: stains are of RGB images of 8 or 16 bits, this one is {'RGB' if is_rgb else 'no RGB'} of "
            f"{dtype}; remove stains from measurements.groups, or the slide"
        )
    channels = [*view.channels, *RGB]
    with open_slide(image.path, memory_mb=task.memory_mb, view=view.model_copy(update={"channels": channels})) as slide:
        yield slide


def _scores_of(task: Task, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the column of the scores of detected objects; none of masks made of pixels."""
    path = task.path(paths.SCORES)
    if not path.is_file():
        return {}
    scores = pd.read_csv(path).set_index("id")["score"]
    return {SCORE.column: scores.reindex(ids).to_numpy()}


def _measure(image: Slide, mask: Mask, instances: Array) -> ObjectTable:
    path, shape = mask.slide.path, mask.slide.shape
    if not shape == instances.shape == image.shape or mask.slide.channels != 1 or instances.dtype != np.uint32:
        raise SlideError(
            f"{path}: the mask has {shape} px in {mask.slide.channels} channels and object ids of "
            f"{instances.shape} px {instances.dtype}, its slide {image.path} has {image.shape} px; {REMAKE}"
        )
    try:
        return measure_objects(instances, mask.classes)
    except ValueError as error:
        raise SlideError(f"{path}: {error}; {REMAKE}") from error


def _median(areas_px: NDArray[Any]) -> float | None:
    return float(np.median(areas_px)) if len(areas_px) else None


def _regions_of(task: Task, image: Slide, plane: Plane) -> Regions | None:
    """Return the regions of a sample: those that were drawn, else the tissue that was found; None: the whole slide.

    Of a stack, those of the plane: no region may be drawn on it, and no tissue be found.
    """
    drawn, tissue = task.slide.regions, task.path(paths.TISSUE)
    if drawn is None and not tissue.is_file():
        return None
    path = Path(drawn) if drawn else tissue
    regions = read_regions(path, image, memory_mb=task.memory_mb, may_lack=bool(plane.place))
    return regions if drawn or regions.names else None


def _find_members(mask: Mask, objects: ObjectTable, regions: Regions | None, num_classes: int) -> Members:
    try:
        return find_members(mask.classes, objects.centroids_px, regions, num_classes=num_classes)
    except ValueError as error:
        raise SlideError(f"{mask.slide.path}: {error}; {REMAKE}") from error
