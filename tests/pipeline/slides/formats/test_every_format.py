"""Whatever the format: a region is that of the whole image, also if several threads read at once."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from tests.support.opened_slides import assert_regions_equal_the_whole, opened


def every_readable(data):
    """Every file of the formats folder but the TIFF variants, with a view that takes one plane of its stack."""
    formats = data / "formats"
    for path in (*formats.rglob("*.tif"), *formats.rglob("*.tiff"), data / "wsi" / "CMU-1-Small-Region.svs"):
        if "tiff_variants" not in path.parts:
            yield path, {"z": 0, "t": 0}
    for name in ("imagej/xyzct-mitosis.tif", "ome_tiff/multifile/multifile.companion.ome", "nd2/cluster.nd2"):
        yield formats / name, {"z": "max", "t": 0}
    for name in ("E/07/0", "E/08/0"):
        yield formats / "ome_zarr/single-plane-hcs.zarr" / name, {"channels": [2, 0]}
    yield formats / "ome_zarr/bioformats2raw-zarr/data.zarr", {"channels": [1]}
    yield from ((formats / f"synthetic/ome_zarr_blobs/blobs_image_v0{version}.ome.zarr", {}) for version in (4, 5))
    yield formats / "lif/LeicaLASX_wavelength-sweep_example.lif", {"series": 2, "z": 3, "t": 1, "channels": [9, 4]}


@pytest.mark.parametrize("kept_mb", [256, 0])
def test_regions_equal_the_whole_in_every_format(data, generator, monkeypatch, kept_mb):
    pytest.importorskip("nd2")
    pytest.importorskip("liffile")
    monkeypatch.setattr("pipeline.slides.formats.tiff._KEPT_MB", kept_mb)
    files = list(every_readable(data))
    assert len(files) > 20
    for path, view in files:
        with opened(path, **view) as slide:
            assert_regions_equal_the_whole(slide, generator)
            assert not any("absent" in warning for warning in slide.inspect())


def test_several_threads_read_from_one_slide_what_one_reads(data, generator):
    """All begin at once, each at another level if there are several, as windows of one slide do."""
    pytest.importorskip("nd2")
    pytest.importorskip("liffile")
    threads, interval = 4, sys.getswitchinterval()
    together = Barrier(threads, timeout=30)

    def read(slide, level, rows, columns):
        together.wait()
        return slide.read(rows, columns, level)

    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        with ThreadPoolExecutor(threads) as pool:
            for path, view in 2 * list(every_readable(data)):
                with opened(path, **view) as slide:
                    wholes = [slide.read_all(level) for level in range(len(slide.levels))]
                with opened(path, **view) as slide:
                    places = [
                        (number % len(wholes), *generator.integers(0, slide.shape_of(number % len(wholes))))
                        for number in range(threads)
                    ]
                    windows = [
                        (level, slice(row, row + 64), slice(column, column + 64)) for level, row, column in places
                    ]
                    found = pool.map(read, [slide] * threads, *zip(*windows, strict=True))
                    for (level, rows, columns), pixels in zip(windows, found, strict=True):
                        np.testing.assert_array_equal(pixels, wholes[level][:, rows, columns])
    finally:
        sys.setswitchinterval(interval)
