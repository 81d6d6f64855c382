"""Statistics of a slide are those of its finest level: all of it, or a sample that no file format changes."""

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile

from pipeline.base.errors import SlideError
from pipeline.settings.schema import ImageConfig
from pipeline.slides import intensity
from pipeline.slides.intensity import (
    HIGH_PERCENT,
    LOW_PERCENT,
    Statistics,
    measure_intensities,
    measure_slide,
    normalize,
    sampled_windows,
)
from pipeline.slides.slide import Slide, open_slide


def slide_of(*levels):
    return Slide(path=Path("a"), levels=levels, file_shape=levels[0].shape[1:])


@pytest.fixture
def small_sample(monkeypatch):
    """64 windows of 16 px, of slides of more than 16,384 px."""
    monkeypatch.setattr(intensity, "_WINDOW_PX", 16)
    monkeypatch.setattr(intensity, "_WINDOWS", 64)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("band_px", [2**22, 5000, 900])
def test_up_to_a_size_all_pixels_are_measured_in_any_bands_and_threads(generator, monkeypatch, dtype, band_px):
    monkeypatch.setattr(intensity, "_BAND_PX", band_px)
    pixels = (generator.normal(size=(2, 300, 100)) ** 2 * 20).astype(dtype)
    for threads in (1, 4):
        with dask.config.set(num_workers=threads):
            assert measure_slide(slide_of(pixels)) == measure_intensities(pixels)


def test_a_pyramid_is_measured_on_its_finest_level(generator):
    """Averages of dense nuclei have other percentiles than their pixels."""
    pixels = generator.poisson(20, (1, 2048, 2048)).astype(np.uint8)
    coarse = pixels.reshape(1, 1024, 2, 1024, 2).mean(axis=(2, 4)).astype(np.uint8)
    assert measure_slide(slide_of(pixels, coarse)) == measure_slide(slide_of(pixels)) == measure_intensities(pixels)
    assert measure_slide(slide_of(coarse)) != measure_slide(slide_of(pixels))


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_flat_files_and_pyramids_of_any_tiles_have_the_same_sample(generator, monkeypatch, tmp_path, dtype):
    monkeypatch.setattr("pipeline.slides.formats.tiff._KEPT_MB", 0)  # files are read piece by piece
    pixels = (generator.gamma(2.0, 20.0, (3, 480, 310))).astype(dtype)
    how = {"flat": {}, "strips": {"rowsperstrip": 7, "compression": "zlib"}, "pyramid": {"tile": (32, 64)}}
    for name, options in how.items():
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as tiff:
            more = {"subifds": 2} if name == "pyramid" else {}
            tiff.write(np.moveaxis(pixels, 0, 2), photometric="rgb", **options, **more)
            for step in (2, 4)[: more.get("subifds", 0)]:
                tiff.write(np.moveaxis(pixels, 0, 2)[::step, ::step], photometric="rgb", subfiletype=1, **options)
    found, levels, in_strips = [], [], []
    for name in how:
        with open_slide(tmp_path / f"{name}.tif", memory_mb=100, view=ImageConfig(channels=[0, 1, 2])) as slide:
            found.append(measure_slide(slide))
            levels.append(len(slide.levels))
            in_strips.append(slide.levels[0].in_strips)
    assert levels == [1, 1, 3]
    assert in_strips == [True, True, False]
    assert found[0] == found[1] == found[2] == measure_slide(slide_of(pixels))
    assert found[0] != measure_intensities(pixels)  # it is a sample


@pytest.mark.parametrize("shape", [(9000, 9000), (100_000, 100_000), (100, 1_000_000), (1_000_000, 300), (8192, 8193)])
def test_a_sample_has_1024_windows_on_the_slide_and_reads_no_more_than_them(shape):
    windows = sampled_windows(shape)
    assert windows == sorted(windows)
    assert len(windows) == 1024
    assert all(0 <= start < length for window in windows for start, length in zip(window, shape, strict=True))
    rows = sorted({top for top, _ in windows})
    assert max(after - before for before, after in pairwise([0, *rows, shape[0]])) <= 2 * shape[0] / min(32, len(rows))


@pytest.mark.usefixtures("small_sample")
def test_where_there_are_no_more_cells_than_windows_each_is_drawn_once():
    assert sampled_windows((128, 128)) == [(16 * row, 16 * column) for row in range(8) for column in range(8)]


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("percent", [LOW_PERCENT, HIGH_PERCENT])
@pytest.mark.parametrize("cells", [(8, 8), (9, 13), (40, 57), (3, 900)])
@pytest.mark.parametrize("arrangement", ["scattered", "bands", "corner"])
def test_the_error_of_a_sample_is_within_its_bound(monkeypatch, percent, cells, arrangement):
    """The worst images: cells of one value. Over 300 seeds the mean is right, and the deviation at most as stated."""
    share = percent / 100
    count = cells[0] * cells[1]
    is_below = np.arange(count) < round(share * count)
    if arrangement == "scattered":
        is_below = np.random.default_rng(1).permutation(is_below)
    is_below = is_below.reshape(cells[::-1]).T if arrangement == "bands" else is_below.reshape(cells)
    share = is_below.mean()
    seeds, found = intensity.random.Random(5), []
    monkeypatch.setattr(intensity.random, "Random", lambda _: seeds)
    for _ in range(300):
        windows = sampled_windows((16 * cells[0], 16 * cells[1]))
        found.append(np.mean([is_below[top // 16, left // 16] for top, left in windows]))
    bound = np.sqrt(share * (1 - share) / len(windows))
    assert abs(np.mean(found) - share) <= 4 * bound / np.sqrt(300) + 1e-12
    assert np.sqrt(np.mean((np.array(found) - share) ** 2)) <= 1.15 * bound + 1e-12


@pytest.mark.usefixtures("small_sample")
def test_a_sample_is_counted_as_it_was_drawn(generator):
    pixels = generator.integers(0, 4000, (2, 200, 170)).astype(np.uint16)
    windows = sampled_windows((200, 170))
    assert len(set(windows)) < len(windows)  # some are drawn twice
    drawn = [pixels[:, top : top + 16, left : left + 16].reshape(2, -1) for top, left in windows]
    expected = np.percentile(np.concatenate(drawn, axis=1), [LOW_PERCENT, HIGH_PERCENT], axis=1, method="inverted_cdf")
    found = measure_slide(slide_of(pixels))
    np.testing.assert_array_equal([[one.low for one in found], [one.high for one in found]], expected)


def test_a_real_slide_is_measured_like_its_pixels(data):
    path = data / "wsi" / "CMU-1-Small-Region.svs"
    with open_slide(path, memory_mb=500, view=ImageConfig(channels=[0, 1, 2])) as slide:
        pixels = slide.read_all()
        found = measure_slide(slide)
    assert found == measure_slide(slide_of(pixels))
    expected = np.percentile(pixels, [LOW_PERCENT, HIGH_PERCENT], axis=(1, 2), method="inverted_cdf")
    assert ([one.low for one in found], [one.high for one in found]) == (expected[0].tolist(), expected[1].tolist())


def test_the_percentiles_become_zero_and_one(generator):
    pixels = generator.integers(100, 4000, (2, 50, 50)).astype(np.uint16)
    found = measure_intensities(pixels)
    normalized = normalize(pixels, found)
    assert normalized.dtype == np.float32
    for channel, statistics, result in zip(pixels, found, normalized, strict=True):
        assert result[channel == statistics.low].max() == 0
        assert result[channel == statistics.high].min() == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4", "i4", "i8", "f2", "f4", "f8"])
def test_normalized_pixels_are_those_of_exact_arithmetic(generator, dtype):
    pixels = (50 * generator.random((1, 30, 30))).astype(dtype)
    (found,) = measure_intensities(pixels)
    expected = (pixels.astype(np.longdouble) - found.low) / found.scale
    np.testing.assert_allclose(normalize(pixels, [found]), expected.astype(np.float64), rtol=3e-7, atol=1e-12)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("values", [(-3.4e38, 3.4e38), (0, 3.4e38), (1, 1 + 1e-6), (0, 1e-42)])
def test_floats_at_the_ends_of_their_range_stay_finite_and_ordered(generator, dtype, values):
    pixels = np.sort(generator.choice(np.array([*values, np.mean(values)], dtype), (1, 1, 500)))
    found = measure_intensities(pixels)
    normalized = normalize(pixels, found)
    assert normalized.min() == pytest.approx(0)
    assert normalized.max() == pytest.approx(1)
    assert (np.diff(normalized) >= 0).all()


@pytest.mark.parametrize("dtype", ["f4", "f8", "u4"])
def test_a_hot_pixel_does_not_change_the_others(generator, dtype):
    pixels = (1000 + 100 * generator.random((1, 100, 100))).astype(dtype)
    clean = normalize(pixels, measure_intensities(pixels))
    pixels[0, 7, 7] = 4e9 if dtype == "u4" else 3.4e38
    hot = normalize(pixels, measure_intensities(pixels))
    assert np.isfinite(hot).all()
    others = np.arange(10_000).reshape(1, 100, 100) != 707
    np.testing.assert_allclose(hot[others], clean[others], atol=1e-3)


@pytest.mark.parametrize("pixels", [np.zeros((1, 4, 4), np.uint16), np.full((1, 4, 4), 255, np.uint8)])
def test_a_constant_slide_becomes_zero(pixels):
    assert (normalize(pixels, measure_intensities(pixels)) == 0).all()


def test_a_few_bright_pixels_on_a_constant_slide_stay_in_range():
    pixels = np.zeros((1, 100, 100), np.uint8)
    pixels[0, 0, 0] = 200
    assert normalize(pixels, measure_intensities(pixels)).max() == 1


def test_an_unusable_pixel_is_an_error_of_the_slide():
    pixels = np.array([[[0, 1, np.nan]]], dtype=np.float32)
    with pytest.raises(SlideError, match="a: 1 pixels are NaN or infinite and cannot be normalized; replace them"):
        measure_slide(slide_of(pixels))


def test_statistics_are_equal_after_json():
    statistics = Statistics(minimum=0.0, maximum=9.0, mean=3.5, low=1.0, high=8.0)
    assert Statistics(**json.loads(json.dumps(asdict(statistics)))) == statistics
