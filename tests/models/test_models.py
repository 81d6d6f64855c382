"""Tests that every architecture in the table must pass; a new one needs no changes here."""

import subprocess
import sys

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import models
from models.base.context import measure_context_px
from models.base.cost import count_parameters, gflops_per_mpx
from models.base.geometry import round_up
from tests.support.networks import PER_PIXEL, architecture, network_with_batch_stats, thin_options
from tests.support.paths import ROOT

THIN = {name: thin_options(name) for name in PER_PIXEL}


def build(name, *, in_channels=1, num_classes=2, heads=()):
    torch.manual_seed(0)
    return models.build(name, in_channels=in_channels, num_classes=num_classes, heads=heads, options=THIN[name])


def suitable_px(geometry, cells=2):
    """A length that the network takes, of a few stride cells."""
    return geometry.input_px(round_up(2 * geometry.margin_px + cells * geometry.stride_px + 1, geometry.stride_px))


@pytest.mark.parametrize("name", PER_PIXEL)
class TestEveryModel:
    @pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 7), (3, 5)])
    def test_any_channels_and_classes(self, name, channels, classes):
        network = build(name, in_channels=channels, num_classes=classes).eval()
        length = suitable_px(network.geometry)
        with torch.inference_mode():
            logits = network(torch.randn(2, channels, length, length + network.geometry.stride_px))
        height = length - 2 * network.geometry.margin_px
        assert logits.shape == (2, classes, height, height + network.geometry.stride_px)
        assert logits.isfinite().all()

    def test_heads_are_channels_after_the_classes(self, name):
        plain, headed = build(name), build(name, heads=["boundary", "distance"]).eval()
        assert headed.heads == ("distance", "boundary")
        assert headed.num_classes == plain.num_classes == 2
        length = suitable_px(headed.geometry)
        with torch.inference_mode():
            assert headed(torch.randn(1, 1, length, length)).shape[1] == 4
        shapes = {key: value.shape for key, value in headed.state_dict().items()}
        other = {key for key, value in plain.state_dict().items() if shapes[key] != value.shape}
        assert other and all(4 in shapes[key][:2] for key in other)  # out, in; in, out of a transposed convolution

    def test_every_parameter_learns(self, name):
        network = build(name)
        length = suitable_px(network.geometry)
        heads = network.logits_to_train(torch.randn(2, 1, length, length))
        sum(weight * logits.square().mean() for weight, logits in heads).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        assert all(logits.shape == heads[0][1].shape for _, logits in heads)

    def test_the_first_head_is_that_of_forward(self, name):
        network = build(name).eval()
        image = torch.randn(1, 1, *2 * [suitable_px(network.geometry)])
        with torch.inference_mode():
            (weight, logits), *_ = network.logits_to_train(image)
            assert weight == 1
            assert torch.equal(logits, network(image))

    def test_one_batch_can_be_overfitted(self, name):
        losses = overfit(name, until=0.25)
        assert losses[-1] < 0.25 * losses[0], losses

    def test_weights_are_saved_and_loaded(self, name, tmp_path):
        network, other = network_with_batch_stats(name, **THIN[name]), build(name).eval()
        safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
        other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
        image = torch.randn(1, 1, *2 * [suitable_px(network.geometry)])
        with torch.inference_mode():
            assert torch.equal(network(image), other(image))

    def test_an_exported_program_gives_the_same_logits(self, name):
        network = network_with_batch_stats(name, **THIN[name])
        image = torch.randn(1, 1, *2 * [suitable_px(network.geometry)])
        program = torch.export.export(network, (image,))
        with torch.inference_mode():
            torch.testing.assert_close(program.module()(image), network(image))

    def test_the_context_does_not_depend_on_the_width(self, name):
        """Measured on the narrow_options network and on one that is wider."""
        network = build(name, in_channels=2, num_classes=3)
        wider = models.build(name, in_channels=1, num_classes=1, options=THIN[name])
        assert measure_context_px(wider, network.geometry) == network.geometry.context_px

    def test_nothing_beyond_the_context_changes_a_cell(self, name):
        """Without gradients: logits stay the same if pixels beyond the context change."""
        network = network_with_batch_stats(name, **THIN[name]).double()
        geometry = network.geometry
        if geometry.context_px is None:
            return assert_far_pixels_matter(network)
        stride, context = geometry.stride_px, geometry.context_px
        first = round_up(context + stride, stride)
        length = geometry.input_px(2 * first + 2 * stride)
        image = torch.rand(1, 1, length, length, dtype=torch.float64)
        changed = image.clone()
        changed[..., : first - context] = torch.rand_like(changed[..., : first - context])
        changed[..., first + stride + context :] = torch.rand_like(changed[..., first + stride + context :])
        cell = slice(first - geometry.margin_px, first - geometry.margin_px + stride)
        with torch.inference_mode():
            before, after = network(image), network(changed)
        torch.testing.assert_close(after[..., cell, cell], before[..., cell, cell], rtol=0, atol=1e-12)
        assert not torch.equal(after, before)
        return None

    def test_parameters_and_operations_are_counted(self, name):
        with torch.device("meta"):
            network = models.build(name, in_channels=1, num_classes=2)
        assert count_parameters(network) > 10_000
        assert gflops_per_mpx(network, in_channels=1, sampling=network.geometry) > 1
        assert any(year in network.paper for year in map(str, range(2010, 2030)))

    def test_unknown_options_and_wrong_values_are_errors(self, name):
        assert "width" in architecture(name).options()
        with pytest.raises(ValueError, match=f"model '{name}' has no option 'widht'; available: width"):
            models.build(name, in_channels=1, num_classes=2, options={"widht": 8})
        with pytest.raises(ValueError, match="width must be a whole number of at least 1, got 0"):
            models.build(name, in_channels=1, num_classes=2, options={"width": 0})


def overfit(name, *, until):
    """Train on one batch until the loss has fallen to a share of the first; return all losses."""
    network = build(name).train()
    geometry = network.geometry
    length = suitable_px(geometry, cells=max(4, 64 // geometry.stride_px))
    inner = slice(geometry.margin_px, length - geometry.margin_px)
    bright = torch.zeros(2, length, length, dtype=torch.long)
    bright[0, :, : length // 2] = 1  # borders that a network of stride 32 can follow
    bright[1, length // 2 :] = 1
    image, target = torch.rand(2, 1, length, length) + 0.5 * bright[:, None], bright[:, inner, inner]
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3 if name.startswith("fcn") else 1e-2)
    losses = []
    while len(losses) < 150 and (not losses or losses[-1] >= until * losses[0]):
        heads = network.logits_to_train(image)
        loss = sum(weight * F.cross_entropy(logits, target) for weight, logits in heads)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_far_pixels_matter(network):
    image = torch.rand(1, 1, 256, 1024, dtype=torch.float64)
    changed = image.clone()
    changed[..., -8:] += 1
    with torch.inference_mode():
        assert not torch.equal(network(changed)[..., :8], network(image)[..., :8])


# A 3x3 convolution of stride 2 lies on the first of two pixels, as published: less than half a stride in the end
SHIFTS_PX = {"linknet": -0.59, "deeplabv3": -0.62, "pspnet": -2.70}


@pytest.mark.parametrize("name", PER_PIXEL)
def test_no_network_shifts_its_image(name, monkeypatch):
    """The pixels that a cell of the logits depends on have the centre of the cell as their centroid, if all weights are
    equal and poolings average."""
    monkeypatch.setattr(F, "max_pool2d", average_pooling)
    monkeypatch.setattr(F, "max_unpool2d", lambda image, _, **__: F.interpolate(image, scale_factor=2.0))
    network = models.build(name, in_channels=1, num_classes=1, options=THIN[name]).double().eval()
    geometry = network.geometry
    for parameter_name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.constant_(parameter, parameter.shape[0] / parameter.numel())
        else:
            torch.nn.init.constant_(parameter, float(parameter_name.endswith("weight")))
    stride = geometry.stride_px
    first = round_up((geometry.context_px or 200) + stride, stride)
    columns = geometry.input_px(2 * first + 2 * stride)
    image = torch.ones(1, 1, suitable_px(geometry, cells=1), columns, dtype=torch.float64, requires_grad=True)
    network(image)[..., first - geometry.margin_px :][..., :stride].sum().backward()
    seen = image.grad.sum(dim=(0, 1, 2))
    centroid = (seen * torch.arange(columns)).sum() / seen.sum()
    assert float(centroid) - (first + (stride - 1) / 2) == pytest.approx(SHIFTS_PX.get(name, 0), abs=0.01)


def average_pooling(image, kernel_size, stride=None, padding=0, dilation=1, *, return_indices=False, **_):
    channels = image.shape[1]
    kernel = image.new_full((channels, 1, kernel_size, kernel_size), 1 / kernel_size**2)
    more = {"stride": stride or kernel_size, "padding": padding, "dilation": dilation, "groups": channels}
    pooled = F.conv2d(image, kernel, **more)
    return (pooled, pooled) if return_indices else pooled


def test_an_unknown_model_is_an_error_that_lists_the_others():
    with pytest.raises(ValueError, match="unknown model 'unett'; available: attention_unet, deconvnet"):
        models.build("unett", in_channels=1, num_classes=2)


def test_listing_names_does_not_import_torch():
    code = "import sys, models; print(*models.available()); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert len(done.stdout.split()) == 13


@pytest.mark.parametrize(
    "wrong",
    [
        {"stride_px": 0, "context_px": 1},
        {"stride_px": 4, "context_px": 4, "remainder_px": 4},
        {"stride_px": 4, "context_px": 4, "margin_px": 5},
    ],
)
def test_an_impossible_geometry_is_an_error(wrong):
    with pytest.raises(ValueError, match="must be"):
        models.Geometry(**wrong)
