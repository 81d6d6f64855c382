"""Deep supervision adds heads for training, aligned with the first one, and does not change predictions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import models
from models.layers.deep_supervision import weighted_logits

NETWORKS = [("unet", {"width": 2}), ("unet", {"width": 2, "padding": "valid"}), ("attention_unet", {"width": 2})]
each = pytest.mark.parametrize(("name", "options"), NETWORKS)


def build(name, **options):
    torch.manual_seed(0)
    return models.build(name, in_channels=1, num_classes=3, options=options)


def image_for(network):
    return torch.randn(2, 1, *2 * [network.geometry.input_px(2 * network.margin_px + 4 * network.stride_px)])


@each
@pytest.mark.parametrize(("depth", "weights"), [(3, [1, 0.5]), (4, [1, 0.5, 0.25])])
def test_every_level_but_the_two_lowest_has_a_head(name, options, depth, weights):
    network = build(name, **options, depth=depth, deep_supervision=True)
    heads = network.logits_to_train(image_for(network))
    assert [weight for weight, _ in heads] == weights
    assert len({logits.shape for _, logits in heads}) == 1
    sum(logits.square().mean() for _, logits in heads[1:]).backward()
    assert all(parameter.grad.any() for parameter in network.auxiliary.parameters())


@each
def test_predictions_are_those_without_deep_supervision(name, options):
    network, plain = build(name, **options, deep_supervision=True).eval(), build(name, **options).eval()
    missing, unexpected = plain.load_state_dict(network.state_dict(), strict=False)
    assert not missing
    assert all(key.startswith("auxiliary.") for key in unexpected)
    image = image_for(network)
    with torch.inference_mode():
        assert torch.equal(network(image), plain(image))
        assert torch.equal(network.logits_to_train(image)[0][1], plain(image))
    assert network.geometry == plain.geometry


@each
@pytest.mark.parametrize("depth", [1, 2])
def test_a_shallow_network_is_an_error(name, options, depth):
    with pytest.raises(ValueError, match=f"deep_supervision needs a depth of at least 3, got {depth}"):
        build(name, **options, depth=depth, deep_supervision=True)


@given(level=st.integers(1, 3), margin=st.integers(0, 5), side=st.integers(2, 6))
def test_coarse_logits_are_aligned_with_fine_ones(level, margin, side):
    """A ramp of columns is the same after averaging and enlarging, except at the edges."""
    factor = 2**level
    ramp = torch.arange(float((side + 2 * margin) * factor)).expand(1, 1, (side + 2 * margin) * factor, -1)
    inner = slice(margin * factor, (margin + side) * factor)
    scores = [ramp[..., inner, inner], *[torch.zeros(1, 1, 1, 1)] * (level - 1), F.avg_pool2d(ramp, factor)]
    _, enlarged = weighted_logits(scores)[-1]
    assert enlarged.shape == scores[0].shape
    edge = slice(factor // 2, -factor // 2)
    torch.testing.assert_close(enlarged[..., edge], scores[0][..., edge])
