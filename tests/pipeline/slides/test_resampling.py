"""A resampled image is the same whatever region is read, and each pixel is the mean of its area of the source."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.arrays import LazyArray
from pipeline.slides.resampling import picked, resampled


def at_step(pixels, step, kind=resampled):
    shape = tuple(max(1, round(length / part)) for length, part in zip(pixels.shape[1:], step, strict=True))
    return kind(pixels, shape, step)


steps = st.floats(0.2, 9.0, allow_nan=False)
lengths = st.integers(1, 40)
dtypes = st.sampled_from([np.uint8, np.int16, np.uint32, np.float32, np.float64, bool])


@given(data=st.data(), shape=st.tuples(st.integers(1, 2), lengths, lengths), step=st.tuples(steps, steps), dtype=dtypes)
@pytest.mark.parametrize("kind", [resampled, picked])
def test_a_region_equals_that_of_the_whole_bit_for_bit(data, shape, step, dtype, kind):
    pixels = (np.random.default_rng(1).random(shape) * 200).astype(dtype)
    level = at_step(pixels, step, kind)
    region = []
    for length in level.shape[1:]:
        start = data.draw(st.integers(0, length - 1))
        region.append(slice(start, data.draw(st.integers(start + 1, length))))
    found = level[:, region[0], region[1]]
    assert found.dtype == pixels.dtype
    assert found.tobytes() == np.ascontiguousarray(level[:][:, region[0], region[1]]).tobytes()


@pytest.mark.parametrize("kind", [resampled, picked])
@pytest.mark.parametrize("step", [(0.3, 0.7), (1.0, 1.0), (2.7, 3.9)])
def test_result_does_not_depend_on_the_bands(monkeypatch, generator, kind, step):
    level = at_step(generator.integers(0, 9999, (2, 60, 50)).astype(np.uint16), step, kind)
    expected = level[:]
    monkeypatch.setattr("pipeline.slides.resampling._BAND_PX", 1)
    np.testing.assert_array_equal(level[:], expected)


def test_at_most_a_band_of_the_source_is_read_at_a_time(monkeypatch, generator):
    """Each read of the source is at most a band, or one row of the result."""
    monkeypatch.setattr("pipeline.slides.resampling._BAND_PX", 1000)
    pixels = generator.integers(0, 99, (1, 500, 50)).astype(np.uint8)
    sizes = []

    def read(*key):
        sizes.append(pixels[key].size)
        return pixels[key]

    for kind in (resampled, picked):
        kind(LazyArray(pixels.shape, pixels.dtype, read), (125, 12), (4.0, 4.0))[:]
    assert len(sizes) > 2
    assert max(sizes) <= 1000 + 2 * 50


def test_a_whole_step_is_the_mean_of_blocks(generator):
    pixels = generator.random((2, 12, 20))
    expected = pixels.reshape(2, 4, 3, 5, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(at_step(pixels, (3.0, 4.0))[:], expected, rtol=1e-14)


@given(length=lengths, numerator=st.integers(1, 60), denominator=st.integers(1, 15))
def test_along_an_axis_a_pixel_is_the_integral_over_its_area(length, numerator, denominator):
    """An oracle in exact fractions; beyond the border nothing counts."""
    step = Fraction(numerator, denominator)
    if step < 1 or round(length / step) < 1:
        return
    values = [Fraction(index * index % 17) for index in range(length)]
    level = at_step(np.array([[float(value) for value in values]])[None], (1.0, float(step)))
    for number, found in enumerate(level[:][0, 0]):
        start, end = number * step, min((number + 1) * step, length)
        covered = [max(Fraction(0), min(end, index + 1) - max(start, index)) for index in range(length)]
        expected = sum(part * value for part, value in zip(covered, values, strict=True)) / (end - start)
        assert found == pytest.approx(float(expected), abs=1e-9)


@given(length=st.integers(2, 30), step=st.floats(0.1, 0.99))
def test_enlarging_a_ramp_is_a_ramp(length, step):
    ramp = np.arange(length, dtype=np.float64)
    found = at_step(ramp[None, None], (1.0, step))[:][0, 0]
    centres = (np.arange(len(found)) + 0.5) * step - 0.5
    np.testing.assert_allclose(found, np.clip(centres, 0, length - 1), atol=1e-9)


@given(value=st.integers(0, 255), step=st.tuples(steps, steps), shape=st.tuples(st.just(1), lengths, lengths))
def test_a_constant_image_stays_constant(value, step, shape):
    assert (at_step(np.full(shape, value, np.uint8), step)[:] == value).all()


@given(step=st.tuples(steps, steps), shape=st.tuples(st.just(1), lengths, lengths))
def test_labels_are_picked_at_pixel_centres(step, shape):
    labels = np.random.default_rng(2).integers(0, 9, shape).astype(np.int32)
    found = at_step(labels, step, picked)[:][0]
    rows, columns = (
        np.minimum(np.floor((np.arange(count) + 0.5) * part).astype(int), length - 1)
        for count, part, length in zip(found.shape, step, shape[1:], strict=True)
    )
    np.testing.assert_array_equal(found, labels[0][np.ix_(rows, columns)])


def test_integers_are_rounded_to_the_nearest():
    assert at_step(np.array([[[1, 2, 2, 2]]], np.uint8), (1.0, 4.0))[:].tolist() == [[[2]]]
