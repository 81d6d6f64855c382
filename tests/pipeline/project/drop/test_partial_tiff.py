"""A TIFF that ends before data it points to is still being copied; no other file is."""

import struct

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.project.drop.partial_tiff import is_partial

IMAGE = np.arange(300 * 200, dtype=np.uint16).reshape(300, 200)
WAYS = {
    "strips": {},
    "one strip": {"rowsperstrip": 300},
    "big": {"bigtiff": True, "tile": (64, 64)},
    "compressed": {"compression": "zlib", "tile": (128, 128)},
    "big endian": {"byteorder": ">"},
}


@pytest.fixture(scope="module", params=WAYS)
def whole(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.tif"
    tifffile.imwrite(path, IMAGE, **WAYS[request.param])
    return path


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    path = tmp_path_factory.mktemp("pyramid") / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE, subifds=1, tile=(64, 64))
        writer.write(IMAGE[::2, ::2], subfiletype=1, tile=(64, 64))
    return path


def test_a_whole_file_is_not_partial(whole, pyramid):
    assert not is_partial(whole)
    assert not is_partial(pyramid)


@given(share=st.floats(0.001, 1))
@example(share=1.0)  # only the last byte is missing
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_every_beginning_of_a_file_is_partial(whole, pyramid, share, tmp_path):
    for path in (whole, pyramid):
        content = path.read_bytes()[:-1]
        (tmp_path / "cut.tif").write_bytes(content[: max(4, int(share * len(content)))])
        assert is_partial(tmp_path / "cut.tif")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"II",
        b"<html>Sign in</html>",
        b"\x89PNG\r\n\x1a\n",
        b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8),  # a circle of directories
        b"II*\0" + struct.pack("<IHHHIII", 8, 1, 273, 99, 7, 0, 0),  # a type that there is not
    ],
)
def test_other_and_damaged_files_are_not_partial(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert not is_partial(tmp_path / "a.tif")


def test_no_file_raises_an_error(data):
    """All that is known to be bad is looked at, without an exception."""
    looked = [is_partial(path) for path in sorted((data / "bad").rglob("*.tif*")) if path.is_file()]
    assert len(looked) > 50
    assert any(looked)
