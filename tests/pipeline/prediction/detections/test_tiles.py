"""Every planted disc is one object, whatever the tiles, an interruption and the number of windows that see it."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from models.base.detection import Detection
from pipeline.prediction import loop
from pipeline.prediction.detections.paint import detected_mask, mask_of_objects
from pipeline.prediction.detections.stored import read_objects
from pipeline.prediction.detections.verification import differing_objects, objects_of
from pipeline.prediction.results import Target
from pipeline.prediction.store import PredictionWriter, open_prediction
from pipeline.settings.masks import MaskConfig
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TileConfig
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan_slide import plan_slide
from tests.support.detection import planted_discs, sees_discs
from tests.support.networks import CARD, CLASSES

DETECTED = MaskConfig(instances="detected")


@pytest.fixture(scope="module")
def planted():
    return planted_discs(40, 25)


def grid_of(network, shape, tile_px):
    return Grid.plan(shape, geometry=network.geometry, tile_px=tile_px, mirror_px=16)


def painted(found, shape, folder):
    mask = detected_mask(found, shape, min_object_px=0, max_hole_px=0, scratch=folder)
    return mask.images["instances"][:], mask.images["classes"][:], mask.scores


@pytest.mark.parametrize("tile_px", [16, 80, 112, 256, 2000])
def test_a_thousand_discs_are_found_exactly_once(planted, tile_px, tmp_path):
    network = sees_discs()
    image = (planted > 0).astype(np.float32)[None]
    found = objects_of(network, image, grid_of(network, planted.shape, tile_px))
    assert len(found) == 1000
    instances, classes, scores = painted(found, planted.shape, tmp_path)
    pairs = np.unique(np.stack([planted.ravel(), instances.ravel()]), axis=1)
    assert pairs.shape[1] == 1001  # each disc with one id, background with 0
    assert instances.max() == len(scores) == 1000
    np.testing.assert_array_equal(classes, planted > 0)


def test_a_smaller_halo_would_miss_or_repeat_discs(planted):
    """The test above can fail: windows that show no disc as a whole."""
    network = sees_discs(largest_px=1)
    grid = Grid(shape=planted.shape, tile=(64, 64), halo_px=0, surround_px=0, stride_px=16)
    found = objects_of(network, (planted > 0).astype(np.float32)[None], grid)
    areas = sorted(int(one.mask.sum()) for one in found)
    assert areas != sorted(np.bincount(planted.ravel())[1:].tolist())


def test_objects_of_tiles_and_of_one_pass_are_compared(planted):
    network = sees_discs()
    image = (planted[:200, :200] > 0).astype(np.float32)[None]
    grid = grid_of(network, (200, 200), 64)
    assert differing_objects(network, image, grid) == 0
    without = Grid(shape=(200, 200), tile=(64, 64), halo_px=0, surround_px=0, stride_px=16)
    assert 0 < differing_objects(network, image, without) < 1
    assert differing_objects(network, np.zeros_like(image), grid) == 0


class PulledPlugError(Exception):
    """A power cut."""


class Job:
    """A slide of discs, planned in tiles, and its prediction."""

    def __init__(self, folder, ids, tile_px=64):
        self.folder, self.network = folder, sees_discs()
        tifffile.imwrite(folder / "a.tif", (200 * (ids > 0)).astype(np.uint8))
        self.card = replace(CARD, geometry=self.network.geometry, architecture="mask_rcnn")
        config = TileConfig(image=ImageConfig(), tile_px=tile_px, mirror_px=16, skip_glass=False)
        self.plan = plan_slide(folder / "a.tif", self.card, 1000, config)

    def predict(self, name):
        path = self.folder / name / "a.zarr.zip"
        target = Target(sample="a", plan=self.plan, path=path, identity="1")
        (finished,) = loop.segment_slides(
            [self.network], self.card, [target], probabilities=True, memory_mb=1000, threads=1
        )
        with open_prediction(path) as group:
            found = read_objects(group)
            instances = mask_of_objects(group, DETECTED, pixel_um2=None, scratch=self.folder / name).images["instances"]
            return found, instances[:], group["labels"][:], group["probabilities"][:], finished.outcome


def test_the_loop_stores_the_objects_that_are_painted(planted, tmp_path):
    ids = planted[:300, :300]
    job = Job(tmp_path, ids)
    found, instances, labels, probabilities, measured = job.predict("whole")
    assert measured.objects
    assert instances.max() == len(np.unique(ids)) - 1
    np.testing.assert_array_equal(instances > 0, ids > 0)
    np.testing.assert_array_equal(labels, ids > 0)
    assert probabilities.shape == (len(CLASSES), *ids.shape)
    assert all(isinstance(one, Detection) for one in found)
    assert len(found) >= instances.max()  # of some, two windows saw the centre


def test_an_interruption_does_not_change_the_objects(planted, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.prediction.loop.batch_limit_px", lambda *_: 128**2)  # a record per window
    job = Job(tmp_path, planted[:300, :300])
    found, instances, *_ = job.predict("whole")
    record, left = PredictionWriter.record, [3, 4]

    def pulled(writer, progress):
        record(writer, progress)
        left[0] -= 1
        if left[0] == 0:
            left[:] = left[1:] or [-1]
            raise PulledPlugError

    monkeypatch.setattr(PredictionWriter, "record", pulled)
    for _ in range(2):
        with pytest.raises(PulledPlugError):
            job.predict("pulled")
    again, same, *_ = job.predict("pulled")
    np.testing.assert_array_equal(same, instances)
    assert [(one.top, one.left, one.score) for one in again] == [(one.top, one.left, one.score) for one in found]


def test_a_slide_without_objects_has_an_empty_mask(tmp_path):
    ids = np.zeros((100, 100), np.int32)
    ids[0, 0] = 1  # the image is not constant
    found, instances, *_ = Job(tmp_path, ids).predict("whole")
    assert len(found) == 1
    assert (instances > 0).sum() == 1
