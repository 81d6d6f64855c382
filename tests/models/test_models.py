"""What every architecture in the table must do. A new one is tested here by its name alone."""

import pytest
import safetensors.torch
import torch

import models


@pytest.mark.parametrize("name", models.available())
class TestEveryModel:
    @pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5)])
    def test_any_channels_and_classes(self, name, channels, classes):
        network = models.build(name, in_channels=channels, num_classes=classes).eval()
        length = network.geometry.input_px(2 * network.geometry.halo_px + network.geometry.stride_px)
        with torch.inference_mode():
            logits = network(torch.randn(2, channels, length, length))
        margins = 2 * network.geometry.margin_px
        assert logits.shape == (2, classes, length - margins, length - margins)
        assert logits.isfinite().all()

    def test_every_parameter_gets_a_gradient(self, name):
        network = models.build(name, in_channels=1, num_classes=2)
        length = network.geometry.input_px(2 * network.geometry.halo_px + network.geometry.stride_px)
        network(torch.randn(2, 1, length, length)).square().mean().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_weights_survive_safetensors(self, name, tmp_path):
        network, other = (models.build(name, in_channels=1, num_classes=2).eval() for _ in range(2))
        safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
        other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
        length = network.geometry.input_px(2 * network.geometry.halo_px + network.geometry.stride_px)
        image = torch.randn(1, 1, length, length)
        with torch.inference_mode():
            assert torch.equal(network(image), other(image))


def test_an_unknown_model_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="unknown model 'unett'; available: unet"):
        models.build("unett", in_channels=1, num_classes=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride_px": 0, "context_px": 1},
        {"stride_px": 4, "context_px": 4, "remainder_px": 4},
        {"stride_px": 4, "context_px": 4, "margin_px": 5},
    ],
)
def test_an_impossible_geometry_cannot_be_made(wrong):
    with pytest.raises(ValueError, match="must be"):
        models.Geometry(**wrong)
