"""A label image is read as the numbers in its file; one that changes numbers is refused."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile

from pipeline.base.errors import SlideError
from pipeline.slides.slide import open_plane, open_slide

MEMORY_MB = 500


def labels_of(path):
    with open_plane(path, memory_mb=MEMORY_MB) as labels:
        return labels.read_all()[0]


IDS = np.array([[0, 1, 1, 2], [3, 3, 0, 2]], np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (IDS, {"photometric": "miniswhite"}),
        (IDS.astype(np.uint16), {"photometric": "miniswhite", "tile": (16, 16), "compression": "zlib"}),
        (IDS, {"photometric": "palette", "colormap": COLOURS}),
        (IDS, {"imagej": True, "metadata": {"LUTs": [np.stack([np.arange(256)[::-1].astype(np.uint8)] * 3)]}}),
        (IDS > 0, {}),
        (IDS > 0, {"photometric": "minisblack"}),
        (IDS > 0, {"photometric": "miniswhite", "compression": "packbits"}),
    ],
)
@pytest.mark.parametrize("kept_mb", [256, 0])
def test_a_label_tiff_is_its_numbers(tmp_path, monkeypatch, pixels, options, kept_mb):
    """Whatever its colours: white as 0, a palette, an inverting table, one bit a pixel."""
    monkeypatch.setattr("pipeline.slides.formats.tiff._KEPT_MB", kept_mb)
    tifffile.imwrite(tmp_path / "x.tif", pixels, **options)
    np.testing.assert_array_equal(labels_of(tmp_path / "x.tif"), pixels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colours", ["grey", "palette"])
def test_a_label_png_is_its_numbers(tmp_path, bits, colours):
    """Also those of few bits, which decoders spread over 0 to 255."""
    numbers = IDS & (2**bits - 1)
    packed = b"".join(
        b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes() for row in numbers
    )
    header = struct.pack(">IIBBBBB", 4, 2, bits, {"grey": 0, "palette": 3}[colours], 0, 0, 0)
    palette = [(b"PLTE", bytes(range(3 * 2**bits - 1, -1, -1)) if bits < 8 else bytes(range(256)) * 3)]
    chunks = [(b"IHDR", header), *palette * (colours == "palette"), (b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    )
    np.testing.assert_array_equal(labels_of(tmp_path / "x.png"), numbers)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"compression": "jpeg"}, "JPEG"),
        ({"compression": "jpegxr"}, "JPEG XR"),
        ({"compression": "jpegxl"}, "JPEG XL"),
        ({"compression": "lerc", "compressionargs": {"level": 30}}, "LERC"),
        ({"compression": "jpeg2000", "compressionargs": {"level": 30, "reversible": False}}, "JPEG 2000"),
        ({"compression": "jpeg2000", "compressionargs": {"reversible": True}}, None),
        ({"compression": "zlib"}, None),
        ({"compression": "lzw"}, None),
        ({"compression": "zstd"}, None),
    ],
)
def test_labels_whose_compression_changes_numbers_are_refused_by_its_name(tmp_path, options, name):
    pixels = np.kron(IDS, np.ones((8, 8), np.uint8))
    tifffile.imwrite(tmp_path / "x.tif", pixels, tile=(16, 16), **options)
    if name is None:
        np.testing.assert_array_equal(labels_of(tmp_path / "x.tif"), pixels)
        return
    with pytest.raises(
        SlideError, match=f"{name} changes the numbers of a label image; save the original labels as PNG"
    ):
        labels_of(tmp_path / "x.tif")
    with open_slide(tmp_path / "x.tif", memory_mb=MEMORY_MB) as slide:
        assert slide.read_all().shape == (1, 16, 32)  # a slide may be compressed


def test_jpegs_as_labels_are_refused_whatever_their_suffix(tmp_path):
    for name in ("x.jpg", "x.png"):
        PIL.Image.fromarray(IDS).save(tmp_path / name, format="JPEG")
        with pytest.raises(SlideError, match="JPEG changes the numbers of a label image"):
            labels_of(tmp_path / name)
