"""Regions of a TIFF are those of the whole image, and a tile that overlapping windows share is decoded once."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
import tifffile

from pipeline.slides.formats import tiff_tiles
from pipeline.slides.formats.tiff_tiles import array_of_tiles

LAYOUTS = {
    "tiles": {"tile": (32, 48)},
    "strips": {"rowsperstrip": 7},
    "one strip": {"rowsperstrip": 200},
}
STORED = {
    "raw": {},
    "zlib": {"compression": "zlib"},
    "predictor": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "big endian": {"compression": "zlib", "byteorder": ">"},
}


@pytest.fixture
def opened():
    with ExitStack() as stack:

        def open_first(path):
            series = stack.enter_context(tifffile.TiffFile(path)).series[0]
            return array_of_tiles(series, stack)

        yield open_first


def regions(generator, shape, count=12):
    for _ in range(count):
        (top, bottom), (left, right) = (sorted(generator.choice(length + 1, 2, replace=False)) for length in shape)
        yield slice(top, bottom), slice(left, right)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("shape", [(131, 170), (131, 170, 3), (2, 3, 131, 170), (2, 131, 170, 3), (3, 131, 170)])
def test_a_region_is_that_of_the_whole_image(tmp_path, generator, opened, layout, stored, shape):
    pixels = generator.integers(0, 2**16, shape).astype(np.uint16)
    colours = {"photometric": "rgb"} if shape[-1] == 3 else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **LAYOUTS[layout], **STORED[stored], **colours)
    array = opened(tmp_path / "a.tif")
    assert (array.shape, array.dtype) == (pixels.shape, pixels.dtype)
    np.testing.assert_array_equal(array[:], pixels)
    rows, columns = shape.index(131), shape.index(170)
    for down, across in regions(generator, (131, 170)):
        key = [int(generator.integers(length)) for length in shape]
        key[rows], key[columns] = down, across
        if shape[-1] == 3:
            key[-1] = slice(0, 3)
        np.testing.assert_array_equal(array[tuple(key)], pixels[tuple(key)])


def test_planes_stored_together_are_read_too(tmp_path, generator, opened):
    """A stack of ImageJ has one directory for all its planes, colours apart one page for all of them."""
    stack = generator.integers(0, 255, (5, 40, 50)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True)
    np.testing.assert_array_equal(opened(tmp_path / "stack.tif")[3, 5:20, :], stack[3, 5:20])
    tifffile.imwrite(tmp_path / "apart.tif", stack[:3], planarconfig="separate", photometric="rgb", tile=(16, 16))
    np.testing.assert_array_equal(opened(tmp_path / "apart.tif")[:, 5:20, 7:], stack[:3, 5:20, 7:])


def test_a_tile_without_data_has_the_value_of_no_data(tmp_path, opened):
    def tiles():
        yield np.full((16, 16), 7, np.uint8)
        yield None

    tifffile.imwrite(tmp_path / "a.tif", tiles(), shape=(16, 32), dtype=np.uint8, tile=(16, 16), compression="zlib")
    array = opened(tmp_path / "a.tif")[:]
    assert (array[:, :16] == 7).all()
    assert (array[:, 16:] == 0).all()


@pytest.mark.parametrize("threads", [1, 4])
def test_no_tile_is_decoded_twice_for_windows_that_overlap(tmp_path, generator, opened, monkeypatch, threads):
    pixels = generator.integers(0, 255, (1000, 1100)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib")
    array, decoded, read = opened(tmp_path / "a.tif"), [], tiff_tiles._Tiles._read_tile
    monkeypatch.setattr(tiff_tiles._Tiles, "_read_tile", lambda *place: decoded.append(place[1:]) or read(*place))

    def window(corner):
        down, across = (slice(max(0, start - 96), start + 300 + 96) for start in corner)
        np.testing.assert_array_equal(array[down, across], pixels[down, across])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(window, [(top, left) for top in range(0, 1000, 300) for left in range(0, 1100, 300)]))
    assert len(decoded) == len(set(decoded)) == 16 * 18


def test_tiles_that_the_next_row_of_windows_needs_are_kept_longest(tmp_path, generator, opened, monkeypatch):
    """Two rows of tiles may be kept; without an order, 290 are decoded for the 256 tiles."""
    monkeypatch.setattr(tiff_tiles, "_KEPT_BYTES", 32 * 64 * 64)
    monkeypatch.setattr(tiff_tiles, "_SHARED_PX", 32)
    pixels = generator.integers(0, 255, (1024, 1024)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64))
    array, decoded, read = opened(tmp_path / "a.tif"), [], tiff_tiles._Tiles._read_tile
    monkeypatch.setattr(tiff_tiles._Tiles, "_read_tile", lambda *place: decoded.append(place[1:]) or read(*place))
    for corner in [(top, left) for top in range(0, 1024, 230) for left in range(0, 1024, 230)]:
        down, across = (slice(max(0, start - 12), min(1024, start + 230 + 12)) for start in corner)
        np.testing.assert_array_equal(array[down, across], pixels[down, across])
    assert len(set(decoded)) == 256
    assert len(decoded) < 1.02 * 256


def test_few_tiles_are_kept(tmp_path, generator, opened, monkeypatch):
    monkeypatch.setattr(tiff_tiles, "_KEPT_BYTES", 3 * 64 * 64)
    pixels = generator.integers(0, 255, (300, 300)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib")
    most, get = [], tiff_tiles._Kept.get

    def counted(kept, *what):
        tile = get(kept, *what)
        most.append(len(kept._tiles))
        return tile

    monkeypatch.setattr(tiff_tiles._Kept, "get", counted)
    array = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(array[70:200, 70:200], pixels[70:200, 70:200])
    assert max(most) == 3
    np.testing.assert_array_equal(array[:], pixels)
    assert most[-1] <= 3


@pytest.mark.parametrize(
    ("wanted", "first", "windows"),
    [
        (slice(0, 2000), 0, 1),  # the image begins here
        (slice(0, 2000), 1000, 1),  # inside
        (slice(0, 2000), 1500, 2),  # the next window begins in this tile
        (slice(1800, 3800), 1500, 2),  # the window before ended in it
        (slice(3600, 4000), 3500, 2),  # the image ends in it
        (slice(1600, 1900), 1500, math.inf),  # it is larger than the window
    ],
)
def test_a_tile_is_kept_for_the_windows_that_share_it(wanted, first, windows):
    assert tiff_tiles._windows_at(wanted, first, 500, 4000) == windows


def test_a_tile_that_all_windows_had_is_not_kept(tmp_path, generator, opened, monkeypatch):
    pixels = generator.integers(0, 255, (600, 1200)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(304, 304), compression="zlib")
    array, kept, get = opened(tmp_path / "a.tif"), [], tiff_tiles._Kept.get
    monkeypatch.setattr(tiff_tiles._Kept, "get", lambda of, *what: (get(of, *what), kept.append(set(of._tiles)))[0])
    array[:, :600]
    assert {number for _, number in kept[-1]} == {1, 5}  # the second of four in both rows; the first is done
    array[:, 340:]
    assert kept[-1] == set()


def test_a_damaged_tile_is_an_error_each_time(tmp_path, opened):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), tile=(64, 64), compression="zlib")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start = tiff.pages[0].dataoffsets[0]
    content[start : start + 8] = b"\xff" * 8
    (tmp_path / "a.tif").write_bytes(content)
    array = opened(tmp_path / "a.tif")
    for _ in range(2):
        with pytest.raises(Exception, match="(?i)deflate|zlib|error"):
            array[:]
