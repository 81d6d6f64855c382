"""The objects of training images: numbered, measured by block, and left out of patches that show too little of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.measure import regionprops

from models.mask_rcnn import targets_of
from pipeline.settings.networks import AugmentationConfig
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.object_ids import describe_sides, measure_ids, number_objects, without_slivers
from pipeline.training.data.patches import RandomPatches
from pipeline.training.data.spatial_augmentation import draw_map, magnification
from tests.support.detection import planted_discs
from tests.support.training import STILL


def annotated(ids, **more):
    maps = np.stack([np.ones(ids.shape), ids]).astype(np.float32)
    image = (ids > 0).astype(np.float32)[None]
    return Annotated(name="a", image=image, classes=(ids > 0).astype(np.uint8), maps=maps, has_ids=True, **more)


def test_ids_are_numbered_without_gaps_and_measured():
    ids = np.zeros((1100, 1100), np.uint32)
    ids[1000:1050, 1010:1030] = 4_000_000_000  # across four blocks
    ids[5:8, 7:9] = 17
    numbers = number_objects(ids, source=Path("a.tif"))
    assert sorted(np.unique(numbers[:])) == [0, 1, 2]
    sizes = measure_ids(numbers)
    assert sizes.areas.tolist() == [0, 6, 1000]
    assert sizes.sides.tolist() == [0, 3, 50]
    assert describe_sides([sizes]) == {"smallest_px": pytest.approx(5.35), "largest_px": 50}
    assert describe_sides([measure_ids(np.zeros((5, 5)))]) is None


def test_sizes_are_those_of_scikit_image():
    ids = planted_discs(5, 7)
    sizes = measure_ids(ids)
    for region in regionprops(ids):
        top, left, bottom, right = region.bbox
        assert sizes.areas[region.label] == region.area
        assert sizes.sides[region.label] == max(bottom - top, right - left)


def test_an_object_of_which_less_than_a_quarter_is_visible_is_background():
    sizes = measure_ids(np.repeat([[1, 2]], 100, axis=0))
    patch = torch.zeros(1, 50, 2)
    patch[0, :25, 0], patch[0, :24, 1] = 1, 2
    kept = without_slivers(patch, sizes, 1.0)
    assert kept.unique().tolist() == [0, 1]
    assert without_slivers(patch, sizes, 4.0).unique().tolist() == [0]  # magnified: they have 400 px
    assert without_slivers(patch, sizes, 0.5).unique().tolist() == [0, 1, 2]


def test_a_patch_shows_the_objects_of_its_place():
    ids = planted_discs(8, 8)
    patches = RandomPatches([annotated(ids)], patch_px=64, config=STILL, seed=0)
    for index in range(20):
        image, classes, maps = patches[index]
        shown = maps[-1]
        assert ((shown > 0) <= (classes > 0)).all()
        assert torch.equal(image[0] > 0.5, classes > 0)
        targets = targets_of(classes, shown)
        for mask in targets["masks"]:
            number = int(shown[mask.bool()].unique())
            assert mask.sum() >= 0.25 * (ids == number).sum()
        left = int((shown > 0).sum()), int((classes > 0).sum())
        assert left[0] >= 0.8 * left[1]


def test_changes_of_space_move_ids_as_classes_and_magnification_is_measured(generator):
    config = AugmentationConfig(probability={"rotate_deg": 1, "scale": 1, "elastic_px": 1})
    ids = planted_discs(20, 20)
    patches = RandomPatches([annotated(ids)], patch_px=128, config=config, seed=0)
    _, classes, maps = patches[3]
    shown = maps[-1]
    assert set(shown.unique().tolist()) <= set(range(401))
    assert ((shown > 0) <= (classes > 0)).all()
    assert magnification(None) == 1
    places = torch.stack(torch.meshgrid(2.0 * torch.arange(9), 3.0 * torch.arange(9), indexing="ij"))
    assert magnification(places) == pytest.approx(1 / 6)
    drawn = draw_map(config, 128, generator)
    assert 0.7 < magnification(drawn) < 1.4
