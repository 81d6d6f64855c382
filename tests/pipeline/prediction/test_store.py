"""Predictions are read as they were written; a failed sample raises its error."""

import warnings
import zipfile

import numpy as np
import pytest

from pipeline.base.errors import SlidemillError
from pipeline.prediction.store import open_prediction, write_predictions
from pipeline.tiling.grid import Grid


@pytest.mark.parametrize(("rows", "tile_rows", "chunk_rows"), [(100, 32, 32), (1300, 1056, 352), (600, 608, 304)])
def test_regions_are_read_as_written_and_no_chunk_is_written_twice(tmp_path, generator, rows, tile_rows, chunk_rows):
    labels = generator.integers(0, 3, (rows, 70)).astype(np.uint8)
    probabilities = generator.random((3, rows, 70)).astype(np.float16)
    grid = Grid(shape=(rows, 70), tile=(tile_rows, 32), halo_px=32, stride_px=16)
    path = tmp_path / "batch.zarr.zip"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the zip would hold a chunk twice
        with write_predictions(path, num_classes=3, probabilities=True, identity="a") as writer:
            for sample in ("plate/../a", "b"):
                writer.begin(sample, grid)
                for tile in grid.tiles():
                    writer.write(sample, tile.write, labels[tile.write.slices], probabilities[:, *tile.write.slices])
            writer.fail("b", stage="predict", error="b.tif: damaged")
            writer.fail("c", stage="tile", error="c.tif: empty")
            writer.finish({})
    names = zipfile.ZipFile(path).namelist()
    assert len(names) == len(set(names))
    assert not any(".." in name for name in names)
    with open_prediction(path, "plate/../a") as group:
        assert (group["labels"].chunks, group["probabilities"].chunks) == ((chunk_rows, 32), (1, chunk_rows, 32))
        np.testing.assert_array_equal(group["labels"][:], labels)
        np.testing.assert_array_equal(group["probabilities"][:], probabilities)
    for sample, stage, message in (("b", "predict", "b.tif: damaged"), ("c", "tile", "c.tif: empty")):
        with pytest.raises(SlidemillError, match=message) as caught, open_prediction(path, sample):
            pass
        assert caught.value.stage == stage
    with pytest.raises(SlidemillError, match="has no prediction of 'd'"), open_prediction(path, "d"):
        pass


def test_a_failed_writer_leaves_no_file(tmp_path):
    path = tmp_path / "batch.zarr.zip"
    with pytest.raises(RuntimeError), write_predictions(path, num_classes=2, probabilities=False, identity="a"):
        raise RuntimeError
    assert not path.exists()
