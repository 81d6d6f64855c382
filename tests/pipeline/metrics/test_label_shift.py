"""Labels that lie beside what they mark are noticed, and only they."""

import dataclasses

import numpy as np
import pytest

from pipeline.metrics.label_shift import block_shifts, common_shift, shift_doubt
from pipeline.slides.labels import IGNORED
from pipeline.training.held_back import label_held_back
from tests.support.training import STILL, squares, train_in


def discs(generator, down=0.0, right=0.0, side=512):
    """Discs around random centres, moved by fractions of a pixel."""
    rows, columns = np.mgrid[:side, :side]
    found = np.zeros((side, side), bool)
    for row, column, radius in zip(*generator.uniform(0, side, (2, 80)), generator.uniform(6, 14, 80), strict=True):
        found |= (rows - row - down) ** 2 + (columns - column - right) ** 2 < radius**2
    return found.astype(np.uint8)


@pytest.mark.parametrize("shift", [(0, 0), (-0.6, 0.25), (1.5, -2), (-3, 3), (0.4, 0)])
def test_the_shift_of_labels_is_found_to_a_tenth_of_a_pixel(shift):
    predicted, true = (discs(np.random.default_rng(0), *moved) for moved in ((0, 0), shift))
    true[:40, :60] = IGNORED
    noise = np.random.default_rng(1).random(true.shape) < 0.02
    found = common_shift([*block_shifts(true, predicted ^ noise)])
    np.testing.assert_allclose(found, shift, atol=0.1)


def test_what_is_beyond_the_furthest_shift_is_that(generator):
    true = discs(generator)
    down, _ = common_shift([*block_shifts(true, np.roll(true, -5, 0))])
    assert down == 4


def test_labels_without_a_shift_or_without_a_common_one_are_not_doubted(generator):
    true, noise = discs(generator), generator.integers(0, 2, (512, 512)).astype(np.uint8)
    assert shift_doubt(common_shift([*block_shifts(true, true)])) == ""
    for _ in range(20):  # a network that has learned nothing
        assert shift_doubt(common_shift([*block_shifts(true, generator.permuted(noise))])) == ""
    assert common_shift([(1, 0), (-1, 0), (1, 0), (-1, 0)]) == (0, 0)
    assert common_shift([(1, 0), (1, 0), (2, 0), (-1, 0.5)]) == (1, 0)
    assert common_shift([(1, 0)] * 3) is None  # too few to tell


def test_blocks_without_outlines_say_nothing(generator):
    true, one = discs(generator), np.ones((512, 512), np.uint8)
    assert not [*block_shifts(true, one)]
    assert not [*block_shifts(one, true)]
    assert not [*block_shifts(np.full_like(true, IGNORED), true)]
    assert not [*block_shifts(true[:8, :8], true[:8, :8])]


def test_the_doubt_says_where_labels_lie():
    assert shift_doubt(None) == shift_doubt((0.39, -0.39)) == ""
    assert "lie 0.6 px above what the network finds" in shift_doubt((-0.6, -0.3))
    assert "lie 1.0 px below and 2.0 px left of what" in shift_doubt((1, -2))
    assert "lie 0.5 px right of what" in shift_doubt((0.1, 0.5))


@pytest.mark.parametrize(("augmentation", "expected"), [({}, (-2, 0)), ({"flip": False}, (0, 0))])
def test_mirror_images_hide_a_shift_that_is_learned_without_them(tmp_path, augmentation, expected):
    def shifted(annotated):
        return dataclasses.replace(annotated, classes=np.roll(annotated.classes, -2, axis=0))

    still = STILL.model_copy(update={"flip": True} | augmentation)
    network, _, _ = train_in(tmp_path, source=shifted, augmentation=still, max_steps=120)
    images = [shifted(squares(seed)) for seed in range(10, 16)]
    shifts = [shift for image in label_held_back(network.eval(), images, num_classes=2) for shift in image.shifts]
    np.testing.assert_allclose(common_shift(shifts), expected, atol=0.4)
