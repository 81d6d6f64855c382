"""Sizes of U-Net are the published ones, and its measured context is that of a formula."""

import pytest
import torch

import models


def build(**options):
    return models.build("unet", in_channels=1, num_classes=2, options=options)


def test_valid_convolutions_turn_572_into_388_pixels():
    with torch.inference_mode():
        assert build(width=2, padding="valid")(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_input_and_output_sizes_follow_from_the_geometry(depth, padding):
    network = build(width=1, depth=depth, padding=padding)
    geometry = network.geometry
    length = geometry.input_px(14 * geometry.stride_px)
    assert length % geometry.stride_px == geometry.remainder_px
    with torch.inference_mode():
        logits = network(torch.zeros(1, 1, length, length + geometry.stride_px))
    margins = 2 * geometry.margin_px
    assert logits.shape == (1, 2, length - margins, length + geometry.stride_px - margins)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "bilinear", "bed_of_nails", "max_unpooling"])
def test_every_kind_of_up_sampling(upsampling):
    network = build(width=4, depth=2, upsampling=upsampling)
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 24, 32)).shape == (1, 2, 24, 32)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_context_follows_from_the_formula(depth):
    """The deepest path has two 3x3 convolutions on each level of the encoder, at the bottom, and in the decoder.

    From the edge of an aligned cell, with the reach r: the decoder has ceil((r + 2) / 2) on the next coarser level, the
    bottom adds 2, and each level of the encoder has 2 r + 2.
    """
    reach = 0
    for _ in range(depth):
        reach = -(-(reach + 2) // 2)
    reach += 2
    for _ in range(depth):
        reach = 2 * reach + 2
    assert build(width=1, depth=depth).geometry.context_px == reach


@pytest.mark.parametrize("normalization", ["instance", "group"])
def test_instance_and_group_normalization_make_the_context_global(normalization):
    assert build(width=2, depth=1, normalization=normalization).geometry.context_px is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": "4"}, "depth must be a whole number of at least 1, got '4'"),
        ({"padding": "mirror"}, "padding must be one of same, valid, got 'mirror'"),
        ({"upsampling": "cubic"}, "upsampling must be one of transposed, nearest, .*, got 'cubic'"),
        ({"upsampling": "max_unpooling", "padding": "valid"}, "max_unpooling needs padding same"),
    ],
)
def test_a_wrong_option_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
