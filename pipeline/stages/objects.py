"""List the objects of one mask: a table and polygons."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.arrays import Array
from pipeline.base.errors import SlideError
from pipeline.base.files import provenance, replacing, sha256
from pipeline.masks.instances import find_objects
from pipeline.masks.mask_file import REMAKE, Mask, open_mask
from pipeline.masks.object_table import ObjectTable, measure_objects, trace_objects
from pipeline.masks.qupath_geojson import columns_of, features, write_features
from pipeline.settings.stage_sections import ObjectsConfig
from pipeline.slides.slide import Slide, open_slide


def run(
    *,
    sample: str,
    model: str,
    slide: Path,
    mask: Path,
    table: Path,
    annotations: Path,
    memory_mb: int,
    config: ObjectsConfig,
) -> None:
    """Write the objects of one mask; docs/contracts.md describes columns and properties.

    Parameters
    ----------
    sample : str
        Id of the sample.
    model : str
        Name of the network; with the sample, it determines the ids of the polygons.
    slide : Path
        Slide whose intensities are measured.
    mask : Path
        Mask of the slide (OME-TIFF).
    table : Path
        CSV to write, a row for each object.
    annotations : Path
        GeoJSON to write for QuPath, a polygon for each object.
    memory_mb : int
        Largest piece of an image to hold, in MB.
    config : ObjectsConfig
        Classes and how the slide is read.
    """
    channels = list(dict.fromkeys(config.image.channels))
    view = config.image.model_copy(update={"channels": channels})
    with (
        open_slide(slide, memory_mb=memory_mb, view=view) as image,
        open_mask(mask, memory_mb=memory_mb) as labels,
        replacing(table) as table_file,
        replacing(annotations) as annotations_file,
        tempfile.TemporaryDirectory(dir=table_file.parent) as scratch,
    ):
        instances = labels.instances
        if instances is None:
            instances, _ = find_objects(labels.classes, scratch=Path(scratch))
        objects = _measure(image, labels, instances, len(config.classes))
        columns = columns_of(objects, config.classes, channels, labels.slide.pixel_size_um)
        pd.DataFrame(columns).to_csv(table_file, index=False)
        outlines = trace_objects(instances, objects)
        found = features(f"{model}/{sample}", objects, columns, outlines, image.step)
        write_features(annotations_file, found, provenance("objects", config, mask=sha256(mask)))


def _measure(image: Slide, mask: Mask, instances: Array, num_classes: int) -> ObjectTable:
    path, shape = mask.slide.path, mask.slide.shape
    if not shape == instances.shape == image.shape or mask.slide.channels != 1 or instances.dtype != np.uint32:
        raise SlideError(
            f"{path}: the mask has {shape} px in {mask.slide.channels} channels and object ids of "
            f"{instances.shape} px {instances.dtype}, its slide {image.path} has {image.shape} px; {REMAKE}"
        )
    try:
        objects = measure_objects(instances, mask.classes, image.read, channels=image.channels)
    except ValueError as error:
        raise SlideError(f"{path}: {error}; {REMAKE}") from error
    if (highest := int(objects.classes.max(initial=0))) >= num_classes:
        raise SlideError(
            f"{path}: the mask has class {highest} (counted from 0), but {num_classes} classes are configured; {REMAKE}"
        )
    return objects
