"""The mask of a stack is that of its planes, of which one is open at a time; objects are numbered on."""

from contextlib import contextmanager

import numpy as np
import pytest

from pipeline.prediction.mask_stack import stack_of_masks


def masks_of(planes, scores, opened):
    """Functions that make the masks of planes, each open until its stack is closed."""

    @contextmanager
    def counted(number):
        opened.append(number)
        assert len(opened) == 1
        yield
        opened.remove(number)

    def make(number, stack, scratch):
        stack.enter_context(counted(number))
        (scratch / "numbers").write_bytes(b"x")  # a folder of its own
        ids = planes[number].astype(np.uint32)
        return {"classes": (ids > 0).astype(np.uint8), "instances": ids}, scores and scores[number]

    return [lambda *how, number=number: make(number, *how) for number in range(len(planes))]


@pytest.mark.parametrize("counts", [(6,), (2, 3), (3, 2)])
def test_objects_are_numbered_on_and_one_plane_is_open_at_a_time(tmp_path, counts):
    planes = np.zeros((6, 4, 5), int)
    for number, objects in ((0, 1), (1, 2), (3, 4), (5, 1)):  # the others are empty
        planes[number, 1, :objects] = np.arange(1, objects + 1)
    images, scores = stack_of_masks(masks_of(planes, None, []), counts, scratch=tmp_path)
    assert scores is None
    assert images["instances"].shape == (*counts, 4, 5)
    found = np.asarray(images["instances"][...]).reshape(6, 4, 5)
    np.testing.assert_array_equal(np.asarray(images["classes"][...]).reshape(6, 4, 5), planes > 0)
    ids = [np.setdiff1d(plane, [0]).tolist() for plane in found]
    assert ids == [[1], [2, 3], [], [4, 5, 6, 7], [], [8]]
    assert [path.name for path in tmp_path.iterdir()] == []


def test_scores_are_those_of_all_planes_in_the_order_of_ids(tmp_path):
    planes = np.array([[[1, 2]], [[0, 0]], [[1, 0]]])
    scores = [np.array([0.5, 0.25], np.float32), np.zeros(0, np.float32), np.array([0.75], np.float32)]
    images, found = stack_of_masks(masks_of(planes, scores, []), (3,), scratch=tmp_path)
    np.testing.assert_array_equal(images["instances"][...], [[[1, 2]], [[0, 0]], [[3, 0]]])
    assert found.tolist() == [0.5, 0.25, 0.75]
