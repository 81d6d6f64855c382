"""A prediction is read as it was written; one that is missing or damaged is an error of one line."""

import warnings
import zipfile

import numpy as np
import pytest

from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import unfinished
from pipeline.prediction.resume import Progress
from pipeline.prediction.store import head_of, open_prediction, write_prediction
from pipeline.tiling.grid import Grid

SMALL = Grid(shape=(20, 30), tile=(32, 32), halo_px=0, surround_px=0, stride_px=16)
LABELS = {"num_classes": 2, "probabilities": False}


@pytest.mark.parametrize(
    ("rows", "tile_rows", "chunk_rows"), [(100, 32, 32), (1300, 1056, 352), (600, 608, 304), (8650, 8656, 512)]
)
def test_regions_are_read_as_written_and_no_chunk_is_written_twice(tmp_path, generator, rows, tile_rows, chunk_rows):
    labels = generator.integers(0, 3, (rows, 70)).astype(np.uint8)
    probabilities = generator.random((3, rows, 70)).astype(np.float16)
    heads = generator.integers(0, 256, (2, rows, 70)).astype(np.uint8)
    grid = Grid(shape=(rows, 70), tile=(tile_rows, 32), halo_px=32, surround_px=32, stride_px=16)
    path = tmp_path / "a.zarr.zip"
    origin = {"stage": "predict", "sha256": {"weights": "1"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the zip would hold a chunk twice
        kept = {"num_classes": 3, "probabilities": True, "heads": ["distance", "boundary"]}
        with write_prediction(path, grid, **kept, identity="a", provenance=origin) as writer:
            for number, tile in enumerate(grid.tiles(), start=1):
                place = (slice(None), *tile.write.slices)
                writer.write(tile.write, labels[tile.write.slices], probabilities[place], heads[place])
                writer.record(Progress(windows=number))
    names = zipfile.ZipFile(path).namelist()
    assert len(names) == len(set(names))
    with open_prediction(path) as group:
        assert (group["labels"].chunks, group["probabilities"].chunks) == ((chunk_rows, 32), (1, chunk_rows, 32))
        np.testing.assert_array_equal(group["labels"][:], labels)
        np.testing.assert_array_equal(group["probabilities"][:], probabilities)
        assert group["heads"].chunks == (1, chunk_rows, 32)
        np.testing.assert_array_equal(head_of(group, "boundary")[:], heads[1])
        assert group.attrs["provenance"] == origin
    assert not unfinished(path).parent.exists()


def test_regions_that_are_not_written_are_background(tmp_path):
    path = tmp_path / "a.zarr.zip"
    (glass,) = (tile.write for tile in SMALL.tiles())
    with write_prediction(path, SMALL, num_classes=2, probabilities=True, identity="a", glass=[glass]):
        pass
    with open_prediction(path) as group:
        assert not group["labels"][:].any()
        np.testing.assert_array_equal(group["probabilities"][:, 5, 5], [1, 0])


def test_probabilities_and_heads_are_there_on_request_only(tmp_path):
    path = tmp_path / "a.zarr.zip"
    with write_prediction(path, SMALL, **LABELS, identity="a"):
        pass
    with open_prediction(path) as group:
        assert set(group.array_keys()) == {"labels"}
        assert head_of(group, "distance") is None


@pytest.mark.parametrize("identity", ["a", "b"])
def test_an_interrupted_prediction_has_its_records_under_the_same_identity_only(tmp_path, identity):
    path = tmp_path / "a.zarr.zip"
    done = Progress(windows=3, rows=1, uncertain_px=5, differing_px=2, compared_px=9)
    done.add_time({"wall": 2.0, "network": 1.0}, 0.5)
    with pytest.raises(RuntimeError), write_prediction(path, SMALL, **LABELS, identity="a") as writer:
        assert writer.records == []
        writer.record(Progress())
        writer.record(done)
        raise RuntimeError
    assert not path.exists()
    with write_prediction(path, SMALL, **LABELS, identity=identity) as writer:
        assert writer.records == ([Progress(), done] if identity == "a" else [])
    assert path.exists()


def test_nothing_is_kept_of_a_slide_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.zarr.zip"
    with pytest.raises(SlideError), write_prediction(path, SMALL, **LABELS, identity="a") as writer:
        writer.record(Progress())
        raise SlideError("a.tif: damaged")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_prediction_is_an_error_of_one_line(tmp_path):
    message = r"a\.zarr\.zip: there is no prediction .* run the workflow again$"
    with pytest.raises(SlidemillError, match=message), open_prediction(tmp_path / "a.zarr.zip"):
        pass


@pytest.mark.parametrize("content", ["", "no zip", "cut off", "other zip"])
def test_a_damaged_prediction_is_an_error_of_one_line(tmp_path, content):
    path = tmp_path / "a.zarr.zip"
    with write_prediction(path, SMALL, **LABELS, identity="a"):
        pass
    if content == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("other", b"")
    else:
        path.write_bytes(path.read_bytes()[:-40] if content == "cut off" else content.encode())
    message = r"a\.zarr\.zip: .*; remove this damaged prediction and run"
    with pytest.raises(SlidemillError, match=message), open_prediction(path):
        pass


def test_a_damaged_piece_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "a.zarr.zip"
    (tile,) = SMALL.tiles()
    with write_prediction(path, SMALL, **LABELS, identity="a") as writer:
        writer.write(tile.write, np.ones(SMALL.shape, np.uint8), None)
    with zipfile.ZipFile(path) as archive:
        piece = archive.getinfo("labels/c/0/0")
    content = bytearray(path.read_bytes())
    content[piece.header_offset + 30 + len(piece.filename) + piece.compress_size // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(SlidemillError, match="remove this damaged prediction"), open_prediction(path) as group:
        group["labels"][:]
