"""Unusual slides are flagged without a reference, good ones are not."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import tifffile

from pipeline.report.quality_flags import APPEARANCE, COHORT, LARGEST_MISMATCH, flags_of, outlier_message
from pipeline.slides.appearance import WINDOW_PX, appearance, windows

NOTHING = {"objects_per_mpx": math.nan, "median_area_px": math.nan, "uncertain": math.nan, "tile_mismatch": math.nan}
NO_COHORT = {name: [] for name in COHORT}


def look(pixels):
    channels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return appearance([channels[:, rows, columns] for rows, columns in windows(channels.shape[1:])])


def test_a_slide_is_sampled_evenly_and_a_small_one_whole():
    assert list(windows((300, 512))) == [(slice(0, 300), slice(0, 512))]
    found = list(windows((100_000, 700)))
    assert len(found) == 4 * 2
    assert all(side.stop - side.start == WINDOW_PX for region in found for side in region)
    assert {(rows.start, columns.start) for rows, columns in found} >= {(0, 0), (100_000 - 512, 700 - 512)}


def test_numbers_by_hand():
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = 255
    seen = look(half)
    assert seen["intensity"] == pytest.approx(0.5)
    assert seen["contrast"] == pytest.approx(1)
    assert seen["skewness"] == pytest.approx(0, abs=1e-9)
    assert seen["saturated"] == 1
    assert seen["tissue"] == 0  # no square holds anything but one value
    red = look(np.stack([half, half // 4, half * 0], axis=-1))
    assert [red[f"colour_{index}"] for index in range(3)] == pytest.approx([255 / 318, 63 / 318, 0])


def test_an_outlier_is_beyond_the_spread_and_beyond_the_range():
    scale = APPEARANCE["focus"]
    others = np.linspace(-2, -1, 11)
    assert outlier_message(-1.5, others, scale) == outlier_message(-2.05, others, scale) == ""
    assert outlier_message(-9, others, scale) == scale.low
    assert outlier_message(9, others, scale) == scale.high
    assert outlier_message(9, others[:7], scale) == ""  # too few
    assert outlier_message(math.nan, others, scale) == ""  # nothing to compare
    assert outlier_message(9, [*others, 9.0], scale) == ""  # it was seen before


def test_a_mismatch_above_the_limit_is_flagged():
    flags = flags_of(NOTHING | {"tile_mismatch": LARGEST_MISMATCH + 0.001}, NO_COHORT, {}, [])
    assert flags == ["tiles label more than 2% of their shared pixels differently"]
    assert flags_of(NOTHING | {"tile_mismatch": LARGEST_MISMATCH}, NO_COHORT, {}, []) == []


@pytest.mark.parametrize(("name", "value"), [("objects_per_mpx", 9000.0), ("median_area_px", 9.0), ("uncertain", 0.5)])
def test_a_mask_unlike_the_others_is_flagged(name, value):
    usual = {"objects_per_mpx": 900.0, "median_area_px": 240.0, "uncertain": 0.04, "tile_mismatch": math.nan}
    cohort = {key: list(usual[key] * np.linspace(0.7, 1.3, 30)) for key in COHORT}
    assert flags_of(usual, cohort, {}, []) == []
    cohort[name].append(value)
    assert len(flags_of(usual | {name: value}, cohort, {}, [])) == 1


@pytest.fixture(scope="module")
def fluorescence(data):
    """20 images to train on, and 30 good ones, of other fields: nuclei of many experiments, 256 px.

    Images with fewer than five nuclei are left out: nearly empty and dark, two of them are rightly flagged.
    """
    index = pd.read_csv(data / "dsb2018" / "index.csv")
    chosen = index[(index["modality"] == "fluorescence") & (index["size_class"] == "256x256")]
    chosen = chosen[chosen["n_nuclei"] >= 5].drop_duplicates("fov_group")["id"].sample(50, random_state=0)
    images = [tifffile.imread(data / "dsb2018" / "images" / f"{name}.tif") for name in chosen]
    return [look(pixels) for pixels in images[:20]], images[20:]


def test_good_slides_are_not_flagged(fluorescence):
    known, good = fluorescence
    assert [flags for pixels in good if (flags := flags_of(NOTHING, NO_COHORT, look(pixels), known))] == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda pixels: 255 - pixels, "inverted"),
        (lambda pixels: scipy.ndimage.gaussian_filter(pixels, 4), "less "),
        (lambda pixels: np.random.default_rng(0).normal(9, 1, pixels.shape).astype(np.uint8), "less contrast"),
        (lambda pixels: np.full_like(pixels, 255), "brighter"),
    ],
    ids=["inverted", "blurred", "empty", "overexposed"],
)
def test_every_spoiled_slide_is_flagged(fluorescence, spoil, reason):
    known, good = fluorescence
    for pixels in good:
        assert reason in "; ".join(flags_of(NOTHING, NO_COHORT, look(spoil(pixels)), known))


def test_another_stain_is_flagged(fluorescence, data):
    known, _ = fluorescence
    index = pd.read_csv(data / "dsb2018" / "index.csv")
    for name in index.loc[index["modality"] == "purple_on_white", "id"].head(5):
        pixels = tifffile.imread(data / "dsb2018" / "images" / f"{name}.tif").mean(axis=-1).astype(np.uint8)
        assert flags_of(NOTHING, NO_COHORT, look(pixels), known)
