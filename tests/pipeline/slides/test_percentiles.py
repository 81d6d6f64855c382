"""Percentiles are those of all pixels sorted, for any type, pieces and threads, whatever the outliers."""

import warnings

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.slides.percentiles import percentiles_and_means

TYPES = ["?", "u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4", "u8", "i8", "f2", "<f4", ">f4", "f8"]
PERCENTS = (0, 1, 50, 99.8, 100)


def of(pixels, cuts=1, percents=PERCENTS):
    pieces = np.array_split(pixels, cuts, axis=1)
    return percentiles_and_means(lambda: (lambda piece=piece: piece for piece in pieces), percents, pixels.dtype)


@st.composite
def images(draw):
    """Two channels of any type, with all numbers it has but NaN and infinite ones."""
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    return draw(arrays(dtype, (2, 9, 11), elements=finite))


@given(pixels=images(), cuts=st.integers(1, 9), threads=st.sampled_from([1, 2, 4]))
def test_percentiles_and_means_are_those_of_all_pixels(pixels, cuts, threads):
    with dask.config.set(num_workers=threads):
        values, means = of(pixels, cuts)
    for channel, found, mean in zip(pixels, values, means, strict=True):
        np.testing.assert_array_equal(found, np.percentile(channel, PERCENTS, method="inverted_cdf"))
        largest = max(np.abs(channel.astype(np.float64)).max(), 1e-200)
        assert mean / largest == pytest.approx(np.mean(channel.astype(np.float64) / largest), abs=1e-9)


@pytest.mark.parametrize("dtype", TYPES)
def test_any_pieces_and_threads_give_the_same_bits(dtype, generator):
    pixels = (generator.normal(size=(2, 120, 50)) ** 2 * 20).astype(dtype)
    found = []
    for cuts, threads in ((1, 1), (7, 2), (120, 4)):
        with dask.config.set(num_workers=threads):
            values, means = of(pixels, cuts)
        found.append((values.tolist(), means))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("outlier", [1e6, 2e9, 3e38])
def test_one_hot_pixel_changes_no_percentile(dtype, outlier, generator):
    if np.dtype(dtype).kind != "f" and outlier > np.iinfo(dtype).max:
        outlier = np.iinfo(dtype).max
    pixels = (100 + 10 * generator.normal(size=(1, 100, 100))).astype(dtype)
    expected = np.percentile(pixels, [1, 99.8], method="inverted_cdf")
    pixels[0, 50, 50] = np.array(outlier).astype(dtype)
    low, high, maximum = of(pixels, percents=(1, 99.8, 100))[0][0].astype(float)
    tolerance = 1e-3 * float(expected[1] - expected[0])
    # A pixel more at the top moves each rank by less than one pixel.
    neighbours = np.sort(pixels.ravel())[[99, 100, 9979, 9980]].astype(float)
    assert neighbours[0] - tolerance <= low <= neighbours[1] + tolerance
    assert neighbours[2] - tolerance <= high <= neighbours[3] + tolerance
    assert maximum == pixels[0, 50, 50]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_and_infinite_pixels_are_counted_and_refused(dtype, value):
    largest = np.finfo(dtype).max
    pixels = np.array([[[0, largest, -largest], [value, 1, value]]], dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="2 pixels are NaN or infinite"):
            of(pixels)
        of(pixels[:, :1])
