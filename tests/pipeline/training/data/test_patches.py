"""Patches depend on seed and number only, are balanced over slides and classes, and stay aligned with their labels."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pipeline.base.errors import SlidemillError
from pipeline.settings.networks import AugmentationConfig
from pipeline.slides.labels import IGNORED
from pipeline.tiling.tissue import Tissue
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.class_index import index_classes
from pipeline.training.data.patches import RandomPatches, _start
from tests.support.training import STILL, squares

SPACE = STILL.model_copy(
    update={
        "flip": True,
        "rotate_deg": 30.0,
        "scale": 0.3,
        "shift_px": 4.0,
        "crop": 0.2,
        "elastic_px": 5.0,
        "probability": dict.fromkeys(["rotate_deg", "scale", "shift_px", "crop", "elastic_px"], 1.0),
    }
)


def of_classes(classes, **more):
    """An image whose intensity and weight are its class."""
    classes = np.asarray(classes, np.uint8)
    image, maps = classes[None].astype(np.float32), classes[None].astype(np.float16)
    return Annotated(name="", image=image, classes=classes, maps=maps, **more)


def patches(config=STILL, *, images=None, patch_px=64, seed=0, **more):
    return RandomPatches(images or [squares(1), squares(2)], patch_px=patch_px, config=config, seed=seed, **more)


def assert_same(one, other):
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("config", [STILL, AugmentationConfig(), SPACE])
def test_patches_have_the_types_that_the_loss_takes(config):
    drawn = patches(config)
    for image, target, maps in (drawn[index] for index in range(6)):
        assert (image.shape, image.dtype) == ((1, 64, 64), torch.float32)
        assert (target.shape, target.dtype) == ((64, 64), torch.int64)
        assert (maps.shape, maps.dtype) == ((1, 64, 64), torch.float32)
        assert set(target.unique().tolist()) <= {0, 1}
        assert type(image) is type(target) is type(maps) is torch.Tensor


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_patch_depends_on_the_seed_and_its_number_only(in_memory):
    """In any order, in a copy, and in another process."""
    images = [of_classes(squares(seed, side=200).classes, in_memory=in_memory) for seed in (1, 2)]
    drawn = patches(AugmentationConfig(), images=images)
    numbers = [300, 7, 0, 16, 7, 128, 2**40]
    found = [drawn[number] for number in numbers]
    copy = pickle.loads(pickle.dumps(drawn))
    for number, patch in reversed(list(zip(numbers, found, strict=True))):
        assert_same(copy[number], patch)
    for number, patch in zip((0, 7), DataLoader(drawn, sampler=[0, 7], num_workers=1), strict=True):
        assert_same(drawn[number], [part[0] for part in patch])
    assert not torch.equal(patches(AugmentationConfig(), images=images, seed=1)[0][0], found[2][0])


def test_patches_of_slides_on_disk_equal_those_of_slides_in_memory():
    """Reading a neighbourhood once for several patches does not change them."""
    images = [of_classes(squares(seed, side=300).classes, in_memory=False) for seed in (1, 2)]
    drawn, alone = patches(SPACE, images=images), patches(SPACE, images=images)
    for number in range(64):
        alone._windows.clear()
        assert_same(drawn[number], alone[number])
    assert len(drawn._windows) == 16
    places = {number: drawn._place(number)[1:] for number in range(256)}
    assert places[3] == places[3 + 16] == places[3 + 7 * 16] != places[3 + 8 * 16]


def test_labels_and_weights_move_with_the_image():
    """The three agree after any change."""
    drawn = patches(SPACE, images=[of_classes(squares(1).classes)])
    for image, target, maps in (drawn[index] for index in range(20)):
        # Labels take the nearest pixel, which has at least a quarter of the weight in bilinear interpolation.
        assert image[0][target == 1].min() >= 0.25 - 1e-4
        assert image[0][target == 0].max() <= 0.75 + 1e-4
        torch.testing.assert_close(image, maps)


def test_ignored_pixels_stay_ignored_and_no_others_become_so():
    classes = np.full((100, 100), IGNORED)
    classes[30:60, 30:60] = 0
    classes[40:50, 40:50] = 1
    drawn = patches(SPACE, images=[of_classes(classes)], patch_px=32)
    for _, target, _ in (drawn[index] for index in range(30)):
        assert set(target.unique().tolist()) <= {0, 1, IGNORED}
    still = patches(images=[of_classes(classes)], patch_px=32)
    assert all((still[index][1] != IGNORED).any() for index in range(50))


def test_an_image_smaller_than_a_patch_is_mirrored():
    tiny = of_classes(np.arange(12).reshape(3, 4))
    image, *_ = patches(images=[tiny], patch_px=16)[0]
    expected = np.pad(tiny.image[0], [(7, 6), (6, 6)], mode="reflect")
    np.testing.assert_array_equal(image[0].numpy(), expected)


def test_real_neighbours_fill_the_corners_of_a_rotated_patch():
    """A rotated patch of a ramp is a ramp up to its corners; mirrored pixels would not be."""
    ramp = np.arange(200, dtype=np.float32)[:, None] + 3 * np.arange(200, dtype=np.float32)
    slide = replace(of_classes(np.zeros(ramp.shape)), image=ramp[None])
    config = STILL.model_copy(update={"rotate_deg": 180.0, "probability": {"rotate_deg": 1.0}})
    drawn = patches(config, images=[slide], patch_px=32)
    inner = 0
    for number in range(40):
        _, point, _ = drawn._place(number)
        if not 45 < min(point) <= max(point) < 155:
            continue  # near the border of the slide, where pixels are mirrored
        inner += 1
        image = drawn[number][0][0].double()
        slope = image[0, 1] - image[0, 0], image[1, 0] - image[0, 0]
        across, down = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="xy")
        torch.testing.assert_close(image, image[0, 0] + slope[0] * across + slope[1] * down, atol=0.02, rtol=0)
        assert slope[0] ** 2 + slope[1] ** 2 == pytest.approx(10, rel=1e-2)
    assert inner > 10


@given(point=st.integers(0, 99), length=st.integers(100, 300), patch_px=st.integers(8, 120), seed=st.integers(0, 99))
def test_a_patch_contains_its_pixel_and_extends_an_eighth_beyond_the_slide(point, length, patch_px, seed):
    start = _start(point, patch_px, length, np.random.default_rng(seed))
    assert start <= point < start + patch_px
    assert -(patch_px // 8) <= start
    assert start + patch_px <= length + patch_px // 8


def test_slides_and_classes_are_drawn_with_equal_probability():
    """A large slide of background, and a small one with the rare class in a corner."""
    rare = np.zeros((64, 64), np.uint8)
    rare[:4, :4] = 1
    images = [of_classes(np.zeros((640, 640))), of_classes(rare)]
    drawn = patches(images=images, patch_px=16, balance=0.0)
    slides = [drawn._place(number)[0] is images[1] for number in range(400)]
    assert np.mean(slides) == pytest.approx(0.5, abs=0.1)
    balanced = patches(images=images, patch_px=16, balance=1.0)
    places = [balanced._place(number) for number in range(400)]
    assert np.mean([slide is images[1] for slide, *_ in places]) == pytest.approx(0.75, abs=0.1)
    assert np.mean([slide is images[1] and max(at) < 32 for slide, at, _ in places]) > 0.5


def test_dense_classes_are_drawn_evenly_over_the_slide(generator):
    """If all classes are everywhere, balance has no effect."""
    images = [of_classes(generator.integers(0, 2, (256, 256)))]
    drawn = patches(images=images, balance=1.0)
    points = np.array([drawn._place(number)[1] for number in range(2000)])
    counts, *_ = np.histogram2d(*points.T, bins=4, range=[[0, 256]] * 2)
    assert counts.min() > 80  # of 125
    assert counts.max() < 175


def test_glass_is_drawn_only_where_it_is_labelled():
    classes = np.zeros((256, 256), np.uint8)
    classes[200:204, 200:204] = 1
    cells = np.zeros((8, 8), dtype=bool)
    cells[0, 0] = True
    slide = of_classes(classes, tissue=Tissue(stained=cells, cells=cells, cell_px=(32.0, 32.0)))
    drawn = patches(images=[slide], balance=0.0)
    points = [drawn._place(number)[1] for number in range(300)]
    assert all(max(at) < 32 or min(at) >= 192 for at in points)
    assert any(max(at) < 32 for at in points)
    assert any(min(at) >= 192 for at in points)


@given(rows=st.integers(1, 90), columns=st.integers(1, 90), seed=st.integers(0, 99), side=st.sampled_from([None, 5000]))
def test_every_annotated_pixel_is_counted_once(rows, columns, seed, side):
    classes = np.random.default_rng(seed).choice([0, 2, IGNORED], (rows, columns), p=[0.5, 0.2, 0.3]).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        if side:
            patch.setattr("pipeline.training.data.class_index._BAND_PX", side)  # several bands
        cells = index_classes(classes)
    for index in (0, 2):
        found = cells.counts.get(index, np.zeros(1))
        assert found.sum() == (classes == index).sum()
        if found.sum():
            assert classes[cells.draw(classes, index, np.random.default_rng(seed))] == index
            assert classes[cells.draw(classes, None, np.random.default_rng(seed))] != IGNORED


def test_stain_jitter_of_a_grey_image_is_an_error():
    with pytest.raises(SlidemillError, match="augmentation.stain needs images of 3 channels .RGB., got 1"):
        patches(AugmentationConfig(stain=0.1))
