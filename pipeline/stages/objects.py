"""List the objects of the masks of one batch: a table, polygons, sums per region and small pictures for each."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.base import paths
from pipeline.base.arrays import Array
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
from pipeline.report.pictures import picture_shape, pictures_of_mask, write_pictures
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import ObjectsConfig
from pipeline.slides.formats.image import PixelSize
from pipeline.slides.regions import Regions, read_regions
from pipeline.slides.slide import Slide, open_slide

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


def _list_objects(task: Task, *, config: ObjectsConfig) -> Made:
    view = view_of(config.image, task.slide.row)
    view = view.model_copy(update={"channels": list(dict.fromkeys(view.channels))})
    if wrong := config.measurements.unknown_channel(view.channels):
        raise SlideError(f"{task.slide.slide}: {wrong}")
    table, annotations, sums = (task.path(path) for path in (paths.OBJECTS, paths.ANNOTATIONS, paths.REGIONS))
    with (
        open_slide(Path(task.slide.slide), memory_mb=task.memory_mb, view=view) as image,
        _with_colours(image, view, task) if "stains" in config.measurements.groups else nullcontext(image) as source,
        open_mask(task.path(paths.MASK), memory_mb=task.memory_mb) as labels,
        replacing(table) as table_file,
        replacing(annotations) as annotations_file,
        replacing(sums) as sums_file,
        tempfile.TemporaryDirectory(dir=table_file.parent) as scratch,
    ):
        instances = labels.instances
        if instances is None:
            instances, _ = find_objects(labels.classes, scratch=Path(scratch))
        objects, size_um = _measure(image, labels, instances), labels.slide.pixel_size_um
        regions = _regions_of(task, image)
        members = _find_members(labels, objects, regions, len(config.classes))
        listed = measurements(config.measurements, config.classes, view.channels)
        names = regions_of_objects(members, len(objects.ids))
        columns = _columns(listed, instances, objects, source, names, config=config, view=view, size_um=size_um)
        scores = _scores_of(task, objects)
        columns, listed = columns | scores, listed + [SCORE] * len(scores)
        pd.DataFrame(columns).to_csv(table_file, index=False)
        region_table(members, columns, config.classes, size_um).to_csv(sums_file, index=False)
        outlines = trace_objects(instances, objects)
        found = features(f"{task.model}/{task.sample}", objects, columns, listed, outlines, image.step)
        made_from = {"mask": task.before.found["mask_sha256"] if task.before else ""}
        made_from |= {"regions": sha256(Path(task.slide.regions))} if task.slide.regions else {}
        write_features(annotations_file, found, provenance("objects", config, **made_from))
        drawn = pictures_of_mask(image, labels.slide, instances, num_classes=len(config.classes))
    pictures = write_pictures(drawn, model=task.model, sample=task.sample)
    measured = _summary(objects, members, labels, len(config.classes)) | {
        "picture_px": list(picture_shape(image.shape)),
        "regions": len(members.names) if task.slide.regions else 0,
        "warnings": [f"its regions: {warning}" for warning in (regions.warnings if regions else ())],
    }
    return Made(files=[table, annotations, sums, *pictures], found=measured)


def _columns(
    listed: Sequence[Measurement],
    instances: Array,
    objects: ObjectTable,
    source: Slide,
    regions: NDArray[np.object_],
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
        listed, objects, pixels, regions, rings=rings, config=config, channels=view.channels, pixel_size_um=size_um
    )


def _summary(objects: ObjectTable, members: Members, mask: Mask, num_classes: int) -> dict[str, Any]:
    """Return what the report says of the objects of a slide without reading their table."""
    areas = objects.areas_px
    return {
        "objects": len(areas),
        "median_area_px": _median(areas),
        "area_spread": float(np.log2(areas).std()) if len(areas) else None,
        "class_objects": np.bincount(objects.classes, minlength=num_classes).tolist(),
        "class_pixels": members.class_px.tolist(),
        "class_median_area_px": [_median(areas[objects.classes == number]) for number in range(num_classes)],
        "pixel_size_um": list(mask.slide.pixel_size_um) if mask.slide.pixel_size_um else None,
    }


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


def _scores_of(task: Task, objects: ObjectTable) -> dict[str, NDArray[Any]]:
    """Return the column of the scores of detected objects; none of masks made of pixels."""
    path = task.path(paths.SCORES)
    if not path.is_file():
        return {}
    scores = pd.read_csv(path).set_index("id")["score"]
    return {SCORE.column: scores.reindex(objects.ids).to_numpy()}


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


def _regions_of(task: Task, image: Slide) -> Regions | None:
    """Return the regions of a sample: those that were drawn, else the tissue that was found; None: the whole slide."""
    drawn, tissue = task.slide.regions, task.path(paths.TISSUE)
    if drawn is None and not tissue.is_file():
        return None
    return read_regions(Path(drawn) if drawn else tissue, image, memory_mb=task.memory_mb)


def _find_members(mask: Mask, objects: ObjectTable, regions: Regions | None, num_classes: int) -> Members:
    try:
        return find_members(mask.classes, objects.centroids_px, regions, num_classes=num_classes)
    except ValueError as error:
        raise SlideError(f"{mask.slide.path}: {error}; {REMAKE}") from error
