"""U-Net is the published one: parameter count, sizes, and a context that is measured, not believed."""

import pytest
import torch

import models


def build(**options):
    return models.build("unet", in_channels=1, num_classes=2, options=options)


@pytest.mark.parametrize(("normalization", "count"), [("none", 31_030_658), ("batch", 31_042_434)])
def test_the_published_network_has_its_parameter_count(normalization, count):
    network = build(width=64, padding="valid", normalization=normalization)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_valid_convolutions_turn_572_into_388_pixels():
    with torch.inference_mode():
        assert build(width=2, padding="valid")(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_geometry_says_what_the_network_takes_and_returns(depth, padding):
    network = build(width=1, depth=depth, padding=padding)
    geometry = network.geometry
    length = geometry.input_px(14 * geometry.stride_px)
    assert length % geometry.stride_px == geometry.remainder_px
    with torch.inference_mode():
        logits = network(torch.zeros(1, 1, length, length + geometry.stride_px))
    margins = 2 * geometry.margin_px
    assert logits.shape == (1, 2, length - margins, length + geometry.stride_px - margins)


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "bilinear", "bed_of_nails", "max_unpooling"])
def test_any_up_sampling(upsampling):
    network = build(width=4, depth=2, upsampling=upsampling)
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 24, 32)).shape == (1, 2, 24, 32)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_context_is_the_sum_of_all_reaches(depth):
    """Along the deepest path, 2 of 3x3 on every level of the encoder, at the bottom and in the decoder.

    From the edge of an aligned cell: the decoder reaches ceil((r + 2) / 2) further on the next coarser level, the
    bottom 2 more, and the encoder doubles and adds 2.
    """
    reach = 0
    for _ in range(depth):
        reach = -(-(reach + 2) // 2)
    reach += 2
    for _ in range(depth):
        reach = 2 * reach + 2
    assert build(width=1, depth=depth).geometry.context_px == reach


@pytest.mark.parametrize("normalization", ["instance", "group"])
def test_statistics_of_the_image_make_the_context_global(normalization):
    assert build(width=2, depth=1, normalization=normalization).geometry.context_px is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"depth": "4"}, "depth must be a whole number of at least 1, got '4'"),
        ({"padding": "mirror"}, "padding must be one of same, valid, got 'mirror'"),
        ({"upsampling": "cubic"}, "upsampling must be one of transposed, nearest, .*, got 'cubic'"),
        ({"upsampling": "max_unpooling", "padding": "valid"}, "max_unpooling needs padding same"),
        ({"widht": 8}, "no option 'widht'; available: width, depth, normalization, padding, upsampling"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
