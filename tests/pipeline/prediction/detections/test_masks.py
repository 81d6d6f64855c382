"""What is left of objects that overlap: by hand, and against a plain painter of the whole image."""

import numpy as np
import pytest
import skimage.measure

from models.base.detection import Detection, detection_of
from pipeline.prediction.detections.merge import mask_iou, merged
from pipeline.prediction.detections.paint import detected_mask


def square(top, left, side, score, number=1):
    return Detection(number, score, top, left, np.ones((side, side), bool))


def paint(found, shape=(40, 50), **more):
    settings = {"min_object_px": 0, "max_hole_px": 0} | more
    mask = detected_mask(found, shape, **settings)
    return mask.images["instances"][:], mask.images["classes"][:], mask.scores


def random_objects(generator, count, shape):
    for _ in range(count):
        side = generator.integers(2, 12, 2)
        top, left = (int(generator.integers(0, length - part + 1)) for length, part in zip(shape, side, strict=True))
        one = detection_of(
            int(generator.integers(1, 4)), float(generator.random()), top, left, generator.random(side) < 0.8
        )
        if one is not None:
            yield one


def whole(one, shape):
    image = np.zeros(shape, bool)
    image[one.slices] = one.mask
    return image


def test_iou_of_masks_is_that_of_whole_images(generator):
    shape = (20, 20)
    found = list(random_objects(generator, 30, shape))
    for one in found:
        for other in found:
            a, b = whole(one, shape), whole(other, shape)
            assert mask_iou(one, other) == pytest.approx((a & b).sum() / (a | b).sum())


def test_of_objects_that_overlap_much_the_surest_stays():
    best, same, part, far = (
        square(0, 0, 10, 0.9),
        square(1, 1, 10, 0.8, 2),
        square(0, 0, 6, 0.7),
        square(20, 20, 5, 0.6),
    )
    assert mask_iou(best, same) == 81 / 119
    assert merged([far, part, same, best]) == [best, part, far]  # 36 / 100 of the best is in the part
    assert merged([]) == []


def test_what_is_left_out_leaves_nothing_out():
    """a > b > c in score; a repeats b, b repeats c, and a is far from c: b goes, c stays."""
    a, b, c = square(0, 0, 12, 0.9), square(0, 3, 12, 0.8), square(0, 6, 12, 0.7)
    assert mask_iou(a, b) == mask_iou(b, c) == 0.6
    assert mask_iou(a, c) < 0.5
    assert merged([b, c, a]) == [a, c]


def test_a_pixel_is_of_the_surest_object_and_the_largest_piece_is_left(tmp_path):
    bar = Detection(2, 0.6, 2, 0, np.ones((2, 20), bool))  # cut in two by the square: 5 and 9 columns are left
    instances, classes, scores = paint([bar, square(0, 5, 6, 0.9)], (8, 20), scratch=tmp_path)
    expected = np.zeros((8, 20), int)
    expected[0:6, 5:11] = 1
    expected[2:4, 11:20] = 2
    np.testing.assert_array_equal(instances, expected)
    np.testing.assert_array_equal(classes, np.array([0, 1, 2])[expected])
    np.testing.assert_allclose(scores, [0.9, 0.6])


def test_blocks_give_the_mask_of_the_whole(generator, tmp_path):
    shape = (60, 70)
    found = list(random_objects(generator, 60, shape))
    masks = [
        detected_mask(found, shape, min_object_px=4, max_hole_px=0, scratch=tmp_path / str(side), block_px=(side, side))
        for side in (7, 16, 100)
    ]
    plain = np.zeros(shape, int)
    for number, one in reversed(list(enumerate(merged(found), start=1))):
        plain[one.slices][one.mask] = number
    kept = np.zeros(shape, int)
    for region in skimage.measure.regionprops(plain):
        pieces = skimage.measure.label(plain == region.label, connectivity=1)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= 4:
            kept[pieces == sizes.argmax() + 1] = region.label
    for mask in masks:
        instances = mask.images["instances"][:]
        pairs = np.unique(np.stack([kept.ravel(), instances.ravel()]), axis=1)
        assert len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1]
        firsts = [int(np.flatnonzero(instances.ravel() == number)[0]) for number in range(1, instances.max() + 1)]
        assert firsts == sorted(firsts)


def test_small_objects_go_small_holes_are_filled_and_what_is_outside_is_cut(tmp_path):
    ring = np.ones((6, 6), bool)
    ring[2:4, 2:4] = False
    found = [Detection(1, 0.9, 2, 2, ring), square(20, 20, 2, 0.8), square(30, 0, 8, 0.7)]
    inside = np.ones((1, 40, 50), np.uint8)
    inside[:, 34:] = 0
    instances, _, scores = paint(found, min_object_px=5, max_hole_px=4, inside=inside, scratch=tmp_path / "a")
    assert np.bincount(instances.ravel())[1:].tolist() == [36, 32]
    np.testing.assert_allclose(scores, [0.9, 0.7])
    instances, *_ = paint(found, max_hole_px=3, scratch=tmp_path / "b")
    assert np.bincount(instances.ravel())[1:].tolist() == [32, 4, 64]
