"""Statistics of a slide are those of all its pixels, for any bands."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.slides.intensity import HIGH_PERCENT, LOW_PERCENT, Statistics, measure_intensities, normalize, row_bands


def of(pixels, cuts=1):
    return measure_intensities(lambda: iter(np.array_split(pixels, cuts, axis=1)), pixels.dtype)


@given(pixels=arrays(np.uint16, (2, 9, 11)), cuts=st.integers(1, 9))
def test_integers_are_exact_in_any_bands(pixels, cuts):
    for channel, found in zip(pixels, of(pixels, cuts), strict=True):
        low, high = np.percentile(channel, [LOW_PERCENT, HIGH_PERCENT], method="inverted_cdf")
        assert (found.low, found.high) == (low, high)
        assert (found.minimum, found.maximum) == (channel.min(), channel.max())
        assert found.mean == pytest.approx(channel.mean())


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint32])
def test_other_types_are_exact_to_a_part_in_65536_of_their_range(dtype, generator):
    pixels = (generator.normal(size=(1, 200, 100)) ** 2 * 1e6).astype(dtype)
    found = of(pixels, cuts=3)[0]
    expected = np.percentile(pixels, [LOW_PERCENT, HIGH_PERCENT], method="inverted_cdf")
    np.testing.assert_allclose([found.low, found.high], expected, atol=np.ptp(pixels.astype(float)) / 65_535)


def test_row_bands_cover_the_slide_once(generator):
    pixels = generator.integers(0, 9, (1, 5000, 3000))
    bands = list(row_bands(lambda rows, columns: pixels[:, rows, columns], (5000, 3000))())
    assert len(bands) > 1
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), pixels)


def test_the_percentiles_become_zero_and_one(generator):
    pixels = generator.integers(100, 4000, (2, 50, 50)).astype(np.uint16)
    found = of(pixels)
    normalized = normalize(pixels, found)
    assert normalized.dtype == np.float32
    for channel, statistics, result in zip(pixels, found, normalized, strict=True):
        assert result[channel == statistics.low].max() == 0
        assert result[channel == statistics.high].min() == pytest.approx(1)


@pytest.mark.parametrize("pixels", [np.zeros((1, 4, 4), np.uint16), np.full((1, 4, 4), 255, np.uint8)])
def test_a_constant_slide_becomes_zero(pixels):
    assert (normalize(pixels, of(pixels)) == 0).all()


def test_a_few_bright_pixels_on_a_constant_slide_stay_in_range():
    pixels = np.zeros((1, 100, 100), np.uint8)
    pixels[0, 0, 0] = 200
    assert normalize(pixels, of(pixels)).max() == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_pixels_are_refused(value):
    pixels = np.array([[[0, 1, value]]], dtype=np.float32)
    with pytest.raises(ValueError, match="1 pixels are NaN or infinite"):
        of(pixels)


def test_statistics_are_equal_after_json():
    statistics = Statistics(minimum=0.0, maximum=9.0, mean=3.5, low=1.0, high=8.0)
    assert Statistics(**json.loads(json.dumps(asdict(statistics)))) == statistics
