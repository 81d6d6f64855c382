"""Every change has the configured strength and probability, and has no effect if it is off."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb_from_hed

from pipeline.settings.networks import AugmentationConfig
from pipeline.settings.schema import Settings
from pipeline.slides.intensity import Statistics
from pipeline.training.data.intensity_augmentation import IMAGE, intensity_changes, jitter_stains
from pipeline.training.data.spatial_augmentation import draw_flip, draw_map, flip_or_rotate, reach_px, resample
from tests.support.training import STILL

SPACE = ("rotate_deg", "shift_px", "scale", "crop", "elastic_px")
COLOUR = {"stain": 0.1, "contrast": 0.5, "brightness": 0.2, "gamma": 0.4}
COLOUR |= {"blur_px": 1.0, "noise": 0.1, "channel_shuffle": True, "erase": 0.5}
BYTES = (Statistics(minimum=0, maximum=255, mean=99, low=0, high=255),) * 3


def always(**changes):
    return STILL.model_copy(update=changes | {"probability": dict.fromkeys(changes, 1.0)})


def places(config, seed=0, patch_px=64):
    return draw_map(config, patch_px, np.random.default_rng(seed))


def changed(config, image, seed=0):
    transform = intensity_changes(config, image.shape[-1])
    transform.set_random_state(seed=seed)
    return transform({IMAGE: image.clone()})[IMAGE]


def identity(patch_px=64):
    axis = torch.arange(patch_px, dtype=torch.float32)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"))


def test_changes_that_are_off_have_no_effect():
    image = torch.rand(3, 16, 16)
    assert places(STILL) is None
    assert torch.equal(changed(STILL, image), image)
    assert [STILL.chance(name) for name in (*SPACE, *COLOUR, "flip")] == [0.0] * 14


@given(seed=st.integers(0, 99), degrees=st.floats(1, 180))
def test_a_rotation_keeps_distances_and_the_centre(seed, degrees):
    found = places(always(rotate_deg=degrees), seed)
    across = found[:, 0, -1] - found[:, 0, 0]
    assert torch.linalg.vector_norm(across).item() == pytest.approx(63, rel=1e-4)
    assert abs(math.atan2(across[0], across[1])) <= math.radians(degrees) + 1e-4
    torch.testing.assert_close(found.mean(dim=(1, 2)), torch.full((2,), 31.5), atol=1e-2, rtol=0)


@given(seed=st.integers(0, 99))
def test_scale_shift_and_crop_stay_within_their_limits(seed):
    scaled = places(always(scale=0.2), seed)
    sides = scaled[:, -1, -1] - scaled[:, 0, 0]
    assert ((sides >= 63 * 0.8 - 1e-3) & (sides <= 63 * 1.2 + 1e-3)).all()
    moved = places(always(shift_px=5.0), seed) - identity()
    assert moved.abs().max() <= 5
    assert (moved.amax(dim=(1, 2)) - moved.amin(dim=(1, 2))).max() < 1e-3
    cropped = places(always(crop=0.3), seed)
    assert cropped.min() >= -0.51
    assert cropped.max() <= 63.51
    assert (cropped[:, -1, -1] - cropped[:, 0, 0]).min() >= 63 * 0.7 - 1e-3


def test_elastic_deformation_is_smooth_and_as_large_as_configured():
    config = always(elastic_px=10.0, elastic_grid_px=64.0)
    moved = torch.stack([places(config, seed, 128) - identity(128) for seed in range(200)])
    assert moved.std().item() == pytest.approx(10 / math.sqrt(3), rel=0.25)  # sigma is uniform up to 10 px
    assert (moved.diff(dim=-1).abs().max() < 2).item()
    assert abs(moved.mean().item()) < 1


def test_spatial_changes_have_their_probability_and_come_together():
    half = AugmentationConfig(probability={"elastic_px": 0.2})
    made = [places(half, seed) for seed in range(400)]
    assert np.mean([one is not None for one in made]) == pytest.approx(0.5, abs=0.08)
    straight = [one is not None and bool(one.diff(n=2, dim=-1).abs().max() < 1e-3) for one in made]
    assert np.mean(straight) == pytest.approx(0.3, abs=0.08)  # rotated and scaled, not deformed


@given(seed=st.integers(0, 99))
def test_the_reach_covers_the_pixels_of_patches(seed):
    config = always(rotate_deg=30.0, scale=0.2, shift_px=3.0, crop=0.2)
    reach = reach_px(config, 64)
    found = places(config, seed)
    assert found.min() >= -reach
    assert found.max() <= 63 + reach


def test_resampling_by_whole_pixels_is_exact(generator):
    pixels = generator.random((2, 20, 30), dtype=np.float32)
    classes = generator.integers(0, 9, (20, 30)).astype(np.uint8)
    moved, target = resample(pixels, classes, identity(8) + torch.tensor([3.0, 5.0]).view(2, 1, 1))
    torch.testing.assert_close(moved, torch.from_numpy(pixels[:, 3:11, 5:13]), atol=1e-5, rtol=0)
    assert torch.equal(target, torch.from_numpy(classes[3:11, 5:13]))


@pytest.mark.parametrize(("flip", "expected"), [("left_right", [[1, 0], [3, 2]]), ("up_down", [[2, 3], [0, 1]])])
def test_flips_along_one_axis_are_made_to_half_of_the_patches(flip, expected, generator):
    config = STILL.model_copy(update={"flip": flip})
    part = torch.tensor([[0, 1], [2, 3]])
    drawn = [flip_or_rotate(part, draw_flip(config, generator)).tolist() for _ in range(200)]
    assert all(one in (part.tolist(), expected) for one in drawn)
    assert 70 < drawn.count(expected) < 130


def test_there_are_eight_flips_and_rotations():
    part = torch.arange(4).view(1, 2, 2)
    assert torch.equal(flip_or_rotate(part, 0), part)
    assert len({tuple(flip_or_rotate(part, number).flatten().tolist()) for number in range(8)}) == 8


@pytest.mark.parametrize("name", [name for name in COLOUR if name != "stain"])
def test_an_intensity_change_depends_on_its_seed(name):
    image = torch.rand(3, 64, 64)
    config = always(**{name: COLOUR[name]})
    found = [changed(config, image, seed) for seed in (1, 1, 2, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert any(not torch.equal(found[0], other) for other in found[2:])
    assert all((one.shape, one.dtype, type(one)) == (image.shape, torch.float32, torch.Tensor) for one in found)


def test_erasing_is_one_rectangle_and_shuffling_keeps_channels():
    image = torch.rand(3, 64, 64) + 1
    for seed in range(20):
        rows, columns = np.nonzero((changed(always(erase=0.25), image, seed) == 0).all(dim=0).numpy())
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        assert max(height, width) <= 16
        mixed = changed(always(channel_shuffle=True), image, seed)
        assert sorted(mixed[:, 0, 0].tolist()) == sorted(image[:, 0, 0].tolist())
        assert torch.equal(mixed[mixed[:, 0, 0].argsort()], image[image[:, 0, 0].argsort()])


def test_a_stain_jitter_of_strength_zero_has_no_effect():
    image = torch.rand(3, 8, 8) * 0.9 + 0.05
    still = jitter_stains(image, BYTES, 255.0, strength=0.0, generator=np.random.default_rng(0))
    torch.testing.assert_close(still, image, atol=1e-5, rtol=0)


def test_a_pure_stain_keeps_its_colour():
    """The optical density of haematoxylin is scaled along its own colour, up to the common shift."""
    amounts = torch.linspace(0.1, 0.8, 16).view(1, 4, 4)
    density = torch.tensor(rgb_from_hed[0], dtype=torch.float32).view(3, 1, 1) * amounts
    for seed in range(10):
        found = jitter_stains(10**-density, BYTES, 255.0, strength=0.2, generator=np.random.default_rng(seed))
        assert not torch.allclose(found, 10**-density, atol=1e-3)
        steps = (-torch.log10(found)).flatten(1).diff(dim=1)
        clear = (found < 0.999).all(dim=0).flatten()
        whole = clear[1:] & clear[:-1]
        ratio = steps[:, whole] / (density.flatten(1).diff(dim=1)[:, whole])
        assert ratio.min() >= 0.8 - 1e-2
        assert ratio.max() <= 1.2 + 1e-2
        assert ratio.std() < 1e-2


def test_the_defaults_are_those_that_were_tuned():
    config = Settings().models["unet"].augmentation
    assert [config.chance(name) for name in (*SPACE, *COLOUR)] == [
        *[0.5, 0.0, 0.5, 0.0, 0.5],
        *[0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0],
    ]
