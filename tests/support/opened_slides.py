"""Slides as tests open them: by a view, whole, and by regions."""

import numpy as np

from pipeline.settings.schema import ImageConfig
from pipeline.slides.slide import open_slide

MEMORY_MB = 500


def opened(path, **view):
    return open_slide(path, memory_mb=MEMORY_MB, view=ImageConfig(**view) if view else None)


def pixels_of(path, **view):
    with opened(path, **view) as slide:
        return slide.read_all()


def assert_regions_equal_the_whole(slide, generator):
    whole = slide.read_all()
    for _ in range(5):
        (top, bottom), (left, right) = (
            np.sort(generator.choice(length + 1, 2, replace=False)) for length in slide.shape
        )
        region = slide.read(slice(int(top), int(bottom)), slice(int(left), int(right)))
        np.testing.assert_array_equal(region, whole[:, top:bottom, left:right])
