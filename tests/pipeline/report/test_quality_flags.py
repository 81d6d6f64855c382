"""Unusual slides are flagged without a reference, good ones are not."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.quality_flags import APPEARANCE, COHORT, FEWEST, LARGEST_MISMATCH, flags_of, outliers
from pipeline.slides.appearance import WINDOW_PX, appearance, windows

NOTHING = {"uncertain": math.nan, "tile_mismatch": math.nan}


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


@pytest.mark.parametrize(("dtype", "hot"), [("u4", 4e9), ("i4", 2e9), ("f4", 3.4e38), ("f8", 1e300)])
def test_one_hot_pixel_does_not_change_the_look(generator, dtype, hot):
    pixels = scipy.ndimage.gaussian_filter(generator.gamma(2.0, 500.0, (300, 300)), 2).astype(dtype)
    clean = look(pixels)
    pixels[150, 150] = hot
    assert look(pixels) == pytest.approx(clean, abs=0.02)


def flags_of_one(appearance, known, **numbers):
    """The flags of a sample of which only the appearance is known."""
    (flags,) = flags_of([NOTHING | numbers], [appearance], known)
    return flags


def test_an_outlier_is_beyond_the_spread_and_beyond_the_range():
    scale = APPEARANCE["focus"]
    others = np.linspace(-2, -1, 11)
    values = [-1.5, -2.05, -9, 9, math.nan]
    assert outliers(values, scale, others) == ["", "", scale.low, scale.high, ""]
    assert outliers([-2.5, -4.2], scale, others[:1]) == ["", scale.low]  # from one: three times as far away
    assert outliers([9], scale, []) == [""]
    assert outliers([9], scale, [*others, 9.0]) == [""]  # it was seen before


numbers = st.one_of(st.just(math.nan), st.integers(0, 5).map(float), st.floats(0, 1e4))


@given(values=st.lists(numbers, max_size=30), scale=st.sampled_from([*APPEARANCE.values(), *COHORT.values()]))
def test_samples_are_compared_with_all_others_but_themselves(values, scale):
    others = [[*values[:place], *values[place + 1 :]] for place in range(len(values))]
    enough = [np.count_nonzero(~np.isnan(those)) >= FEWEST for those in others]
    one_by_one = [outliers([value], scale, those)[0] for value, those in zip(values, others, strict=True)]
    assert outliers(values, scale) == [
        text if is_enough else "" for text, is_enough in zip(one_by_one, enough, strict=True)
    ]


def test_a_mismatch_above_the_limit_is_flagged():
    flags = flags_of_one({}, [], tile_mismatch=LARGEST_MISMATCH + 0.001)
    assert flags == ["tiles label more than 2% of their shared pixels differently"]
    assert flags_of_one({}, [], tile_mismatch=LARGEST_MISMATCH) == []


@pytest.mark.parametrize(
    ("name", "value"), [("objects_per_mm2", 9000.0), ("median_area_um2", 9.0), ("uncertain", 0.35)]
)
def test_a_mask_unlike_the_others_is_flagged(name, value):
    usual = {"objects_per_mm2": 900.0, "median_area_um2": 240.0, "uncertain": 0.04, "tile_mismatch": math.nan}
    samples = [{key: number * factor for key, number in usual.items()} for factor in np.linspace(0.7, 1.3, 30)]
    found = flags_of([usual | {name: value}, *samples], [{}] * 31, [])
    assert [len(flags) for flags in found] == [1] + 30 * [0]


@pytest.mark.parametrize(
    ("numbers", "flag"),
    [
        ({"uncertain": 0.47}, "the network is uncertain about more than 40% of the pixels"),
        ({"agreement": 0.3}, "its reference: most pixels have another class than in the mask"),
        ({"uncertain": 0.4, "agreement": 0.5}, None),
    ],
)
def test_what_is_doubtful_without_a_comparison_is_flagged(numbers, flag):
    flags = flags_of_one({}, [], **numbers)
    assert [text.partition(" (")[0] for text in flags] == ([flag] if flag else [])


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("truth_share", 0.9, "its reference: far more foreground than the others (inverted?)"),
        ("truth_per_mpx", 6.0, "its reference: far fewer objects than the others"),
    ],
)
def test_a_reference_unlike_the_others_is_flagged(name, value, flag):
    usual = {"truth_share": 0.1, "truth_per_mpx": 900.0}
    samples = [NOTHING | {key: number * factor for key, number in usual.items()} for factor in np.linspace(0.7, 1.3, 9)]
    assert flags_of([NOTHING | usual | {name: value}, *samples], [{}] * 10, []) == [[flag], *[[]] * 9]


def test_samples_are_compared_with_the_training_images_if_there_are_any():
    looks = [{"focus": -2 + 0.01 * number} for number in range(12)]
    training = [{"focus": -6 + 0.01 * number} for number in range(8)]
    assert flags_of([NOTHING] * 12, looks, []) == [[]] * 12
    assert flags_of([NOTHING] * 12, looks, [{"focus": look["focus"] + 4} for look in training]) == [[]] * 12
    assert flags_of([NOTHING] * 12, [{"focus": -9.0}] * 12, training) == [["less sharp than the training images"]] * 12


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
    assert [flags for pixels in good if (flags := flags_of_one(look(pixels), known))] == []


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
        assert reason in "; ".join(flags_of_one(look(spoil(pixels)), known))


@pytest.mark.parametrize("images", [1, 4, 20])
def test_another_stain_is_flagged(fluorescence, data, images):
    known = fluorescence[0][:images]
    index = pd.read_csv(data / "dsb2018" / "index.csv")
    for name in index.loc[index["modality"] == "purple_on_white", "id"].head(5):
        pixels = tifffile.imread(data / "dsb2018" / "images" / f"{name}.tif").mean(axis=-1).astype(np.uint8)
        assert flags_of_one(look(pixels), known)
