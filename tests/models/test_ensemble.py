"""An ensemble is the average of the probabilities of its members; its tiles are exact if theirs are."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import models
from models.ensemble import shared_heads
from tests.support.networks import randomize_statistics
from tests.support.prediction import logits_of_the_whole, logits_of_tiles

UNET = {"architecture": "unet", "options": {"width": 2, "depth": 1}}
VALID = {"architecture": "unet", "options": {"width": 2, "depth": 1, "padding": "valid"}}
SEGNET = {"architecture": "segnet", "options": {"width": 2}}


def build(*members, **options):
    torch.manual_seed(0)
    network = models.build("ensemble", in_channels=1, num_classes=3, options={"members": list(members), **options})
    return randomize_statistics(network).double().eval()


@torch.inference_mode()
def test_probabilities_are_averaged():
    ensemble, image = build(UNET, SEGNET), torch.rand(2, 1, 64, 96, dtype=torch.float64)
    expected = sum(member(image).softmax(dim=1) for member in ensemble.members) / 2
    torch.testing.assert_close(ensemble(image).exp(), expected)
    torch.testing.assert_close(ensemble(image).softmax(dim=1), expected)


@torch.inference_mode()
def test_heads_that_all_members_have_are_averaged_as_values_in_0_to_1():
    """The first member has a head more, so its last channel is left out."""
    members = [UNET | {"heads": ["distance", "boundary"]}, SEGNET | {"heads": ["boundary"]}]
    torch.manual_seed(0)
    network = models.build(
        "ensemble", in_channels=1, num_classes=3, heads=shared_heads(members), options={"members": members}
    )
    ensemble, image = randomize_statistics(network).double().eval(), 50 * torch.randn(2, 1, 64, 96).double()
    first, second = (member(image) for member in ensemble.members)
    assert (ensemble.heads, first.shape[1], second.shape[1]) == (("boundary",), 5, 4)
    probabilities = (first[:, :3].softmax(dim=1) + second[:, :3].softmax(dim=1)) / 2
    torch.testing.assert_close(ensemble(image)[:, :3].exp(), probabilities)
    assert (first[:, 4] < 0).any() or (first[:, 4] > 1).any()
    torch.testing.assert_close(ensemble(image)[:, 3], (first[:, 4].clamp(0, 1) + second[:, 3].clamp(0, 1)) / 2)


@torch.inference_mode()
def test_images_are_scaled_and_probabilities_scaled_back():
    ensemble, image = build(UNET, scales=[1, 0.5, 2]), torch.rand(1, 1, 64, 64, dtype=torch.float64)
    (member,) = ensemble.members
    half = member(F.avg_pool2d(image, 2)).softmax(dim=1)
    twice = member(F.interpolate(image, scale_factor=2.0, mode="bilinear")).softmax(dim=1)
    back = F.interpolate(half, scale_factor=2.0, mode="bilinear") + F.avg_pool2d(twice, 2)
    torch.testing.assert_close(ensemble(image).exp(), (member(image).softmax(dim=1) + back) / 3)


FLIPS = {"left_right": [[], [-1]], "up_down": [[], [-2]], "flips": [[], [-1], [-2], [-1, -2]]}


@pytest.mark.parametrize("symmetries", [*FLIPS, "all"])
@torch.inference_mode()
def test_an_ensemble_is_the_average_over_its_scales_and_symmetries(symmetries):
    """Each symmetry of the square by hand: a transposition or none, then a flip of rows or columns, both or none."""
    ensemble, image = build(UNET, scales=[1, 0.5], symmetries=symmetries), torch.rand(1, 1, 32, 48, dtype=torch.float64)
    (member,) = ensemble.members

    def at_both_scales(view):
        half = member(F.avg_pool2d(view, 2)).softmax(dim=1)
        return member(view).softmax(dim=1) + F.interpolate(half, scale_factor=2.0, mode="bilinear")

    total, views = 0.0, 0
    transpositions = [False, True] if symmetries == "all" else [False]
    for flips, transposed in itertools.product(FLIPS.get(symmetries, FLIPS["flips"]), transpositions):
        view = image.flip(flips)
        made = at_both_scales(view.mT).mT if transposed else at_both_scales(view)
        total, views = total + made.flip(flips), views + 2
    torch.testing.assert_close(ensemble(image).exp(), total / views)


@pytest.mark.parametrize("symmetries", ["flips", "all"])
@torch.inference_mode()
def test_symmetries_commute_with_the_network(symmetries):
    """The mirror image of the logits are the logits of the mirror image."""
    ensemble, image = build(UNET, symmetries=symmetries), torch.rand(1, 1, 32, 48, dtype=torch.float64)
    logits = ensemble(image)
    torch.testing.assert_close(ensemble(image.flip(-1)), logits.flip(-1))
    torch.testing.assert_close(ensemble(image.flip(-2)), logits.flip(-2))
    turned = ensemble(torch.rot90(image, dims=(-2, -1)))
    assert torch.allclose(turned, torch.rot90(logits, dims=(-2, -1)), atol=1e-12) == (symmetries == "all")


@pytest.mark.parametrize(
    ("members", "options"),
    [
        ([UNET, SEGNET], {}),
        ([UNET, VALID], {"symmetries": "all"}),
        ([UNET], {"scales": [0.5, 1, 2], "symmetries": "flips"}),
        ([VALID, UNET], {"scales": [0.5, 4]}),
    ],
)
def test_tiles_of_an_ensemble_are_exact(members, options, generator):
    ensemble = build(*members, **options)
    image = generator.random((1, 70, 61))
    tiled = logits_of_tiles(ensemble, image, tile_px=32)
    np.testing.assert_allclose(tiled, logits_of_the_whole(ensemble, image), rtol=0, atol=1e-10)


def test_a_member_with_global_context_makes_the_context_global():
    assert build(UNET, {"architecture": "pspnet", "options": {"width": 2}}).geometry.context_px is None


@pytest.mark.parametrize("wrong", [{"scales": [3]}, {"symmetries": "some"}])
def test_a_wrong_option_is_an_error(wrong):
    with pytest.raises(ValueError, match="must be one of"):
        build(UNET, **wrong)
