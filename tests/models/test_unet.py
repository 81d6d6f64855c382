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


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_declared_context_is_the_measured_one(depth):
    """Gradients of one aligned stride cell reach exactly ``context_px`` beyond it, with every unit kept alive."""
    network = build(width=1, depth=depth, normalization="none").double().eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() + 0.1  # no gradient can cancel or die in a ReLU
    stride, halo = network.geometry.stride_px, network.geometry.halo_px
    image = torch.linspace(1, 2, stride + 4 * halo, dtype=torch.float64).repeat(stride + 4 * halo, 1)
    image = (image + image.T)[None, None].requires_grad_()  # no ties in a pooling window
    first, last = 2 * halo, 2 * halo + stride
    network(image)[..., first:last, first:last].sum().backward()
    seen = image.grad[0, 0].abs().sum(dim=0).nonzero().flatten()
    assert last - 1 - seen.min() - (stride - 1) <= network.geometry.context_px
    assert seen.max() - (last - 1) == network.geometry.context_px


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"depth": "4"}, "depth must be a whole number of at least 1, got '4'"),
        ({"padding": "mirror"}, "padding must be one of same, valid, got 'mirror'"),
        ({"widht": 8}, "model 'unet' has no option 'widht'; available: width, depth, normalization, padding"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
