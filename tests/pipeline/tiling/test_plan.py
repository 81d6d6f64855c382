"""A plan is read as it was written, another file is an error; a pyramid is planned like its finest level."""

import numpy as np
import pytest
import tifffile

from pipeline.base.errors import SlidemillError
from pipeline.base.files import write_json
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.intensity import Statistics
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import read_plans
from pipeline.tiling.plan_slide import plan_slide
from tests.support.networks import CARD
from tests.support.prediction import plan_of

GRID = Grid(shape=(100, 90), tile=(32, 32), halo_px=16, surround_px=16, stride_px=16)
FURTHER = [
    {},
    {
        "statistics": [Statistics(minimum=0, maximum=9, mean=4.5, low=1, high=8)],
        "pixel_size_um": (0.5, 0.25),
        "tissue": [(0, 2), (5, 9)],
        "view": ImageConfig(channels=[2, "DAPI"], pixel_size_um=1.0),
    },
]


@pytest.mark.parametrize("further", FURTHER)
def test_what_was_written_is_read(tmp_path, further):
    plan = plan_of(GRID, **further)
    write_json(tmp_path / "a.json", plan.to_dict() | {"provenance": {"stage": "tile"}})
    assert read_plans(tmp_path / "a.json") == [plan]


@pytest.mark.parametrize("content", [{}, {"slide": "a.tif", "grid": None}])
def test_another_file_is_an_error(tmp_path, content):
    write_json(tmp_path / "a.json", content)
    with pytest.raises(SlidemillError, match=r"a\.json: not a plan of this version: .*; remove it and run again"):
        read_plans(tmp_path / "a.json")


def test_a_missing_plan_is_an_error(tmp_path):
    with pytest.raises(SlidemillError, match=r"a\.json: not a readable JSON file"):
        read_plans(tmp_path / "a.json")


def test_a_pyramid_is_planned_like_the_same_pixels_without_one(tmp_path, generator):
    """Averages of dense nuclei have a smaller range, on which a network would see other intensities."""
    pixels = generator.choice([10, 90, 200], (2100, 2200)).astype(np.uint8)
    coarse = np.rint(pixels.reshape(1050, 2, 1100, 2).mean(axis=(1, 3))).astype(np.uint8)
    tifffile.imwrite(tmp_path / "flat.tif", pixels)
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tiff:
        tiff.write(pixels, tile=(256, 256), subifds=1)
        tiff.write(coarse, tile=(256, 256), subfiletype=1)
    config = TileConfig(image=ImageConfig(), tile_px=512, mirror_px=32, skip_glass=True)
    plans = [plan_slide(tmp_path / f"{name}.tif", CARD, 500, config) for name in ("flat", "pyramid")]
    assert plans[0].statistics == plans[1].statistics
    assert plans[0].grid == plans[1].grid
    assert (plans[0].statistics[0].low, plans[0].statistics[0].high) == (10, 200)
