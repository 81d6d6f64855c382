"""A network that is loaded is the one that its card describes, with numbers that can be meant, or is refused."""

import json

import pytest
import safetensors.torch
import torch

import models
from pipeline.base.errors import SlidemillError
from pipeline.base.files import provenance
from pipeline.networks import weights_file
from pipeline.networks.model_card import card_path
from pipeline.networks.pretrained import load_pretrained
from pipeline.networks.weights_file import load_network, save_network
from tests.support.networks import CLASSES, network_with_batch_stats, write_network

CONVOLUTION, VARIANCE = "encoder.0.0.weight", "encoder.0.1.running_var"


@pytest.fixture
def weights(tmp_path):
    return write_network(tmp_path, width=2, depth=1)


def set_first(value):
    def change(values):
        values.view(-1)[0] = value
        return values

    return change


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        *[(CONVOLUTION, set_first(value), "not finite") for value in (torch.nan, torch.inf, -torch.inf)],
        *[(VARIANCE, set_first(value), "variance that is not positive") for value in (0, -1)],
        (CONVOLUTION, lambda values: values.to(torch.int8), "numbers of type int8"),
        (CONVOLUTION, lambda values: values[:1].clone(), "shape .*, the network"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(weights, name, change, reason):
    state = safetensors.torch.load_file(weights)
    safetensors.torch.save_file(state | {name: change(state[name])}, weights)
    with pytest.raises(SlidemillError, match=f"model.safetensors: weights are not those of .*{name} h.*{reason}"):
        load_network(weights)
    if "shape" not in reason:
        with pytest.raises(SlidemillError, match=f"pretrained .*{name} h.*{reason}"):
            load_pretrained(network_with_batch_stats(width=2, depth=1), str(weights))


def test_a_card_of_another_number_of_channels_is_refused(weights):
    card = card_path(weights)
    card.write_text(json.dumps(json.loads(card.read_text()) | {"in_channels": 2}))
    with pytest.raises(SlidemillError, match="weights are not those of .*has shape .*, the network"):
        load_network(weights)


def test_half_precision_weights_are_the_same_network(weights):
    whole, _ = load_network(weights)
    state = safetensors.torch.load_file(weights)
    safetensors.torch.save_file({name: v.half() if v.is_floating_point() else v for name, v in state.items()}, weights)
    half, _ = load_network(weights)
    for name, values in whole.state_dict().items():
        torch.testing.assert_close(half.state_dict()[name], values, rtol=1e-3, atol=1e-5)


def test_a_channel_that_never_varied_can_be_saved_and_loaded(tmp_path, monkeypatch):
    network = network_with_batch_stats(width=2, depth=1)
    network.state_dict()[VARIANCE].zero_()
    monkeypatch.setattr("tests.support.networks.network_with_batch_stats", lambda *_, **__: network)
    loaded, _ = load_network(write_network(tmp_path))
    image = torch.rand(1, 1, 32, 32)
    assert torch.equal(loaded(image), network(image))


@pytest.mark.parametrize(
    ("edits", "reason"),
    [
        ({"stride_px": 4}, "stride_px is 4, the network that it describes has 2"),
        ({"context_px": 2}, "context_px is 2, the network that it describes has"),
        ({"context_px": None}, "context_px is None"),
        ({"margin_px": 2}, "margin_px is 2"),
        ({"bytes_per_px": 1}, "bytes_per_px is 1, the network that it describes takes"),
        ({"options": {"width": 10**6, "depth": 1}}, "bytes_per_px is"),
        ({"options": {"width": 10**30}}, "model.json: "),
        ({"options": {"width": "wide"}}, "model.json: "),
        ({"architecture": "ensemble", "options": {}}, "model.json: "),
        ({"in_channels": "1"}, "in_channels: Input should be a valid integer"),
        ({"in_channels": True}, "in_channels: Input should be a valid integer"),
        ({"stride_px": 2.5}, "geometry.stride_px: Input should be a valid integer"),
        ({"stride_px": 0}, "stride_px must be at least 1"),
        ({"bytes_per_px": 0}, "bytes_per_px: Input should be greater"),
        ({"classes": "ab"}, "classes: Input should be a valid array"),
        ({"pixel_size_um": [0, 1]}, "pixel_size_um.0: Input should be greater"),
        ({"options": []}, "options: Input should be an object"),
    ],
)
def test_a_card_that_does_not_describe_its_network_is_refused(weights, edits, reason):
    card = card_path(weights)
    card.write_text(json.dumps(json.loads(card.read_text()) | edits))
    with pytest.raises(SlidemillError, match=reason) as caught:
        load_network(weights)
    assert str(caught.value).startswith(str(card))


@pytest.mark.parametrize(
    ("edits", "version", "measures"),
    [
        ({}, "", False),
        ({"pixel_size_um": [1.0, 1.0]}, "", False),
        ({"bytes_per_px": 10**6}, "", True),
        ({}, "0.1", True),
    ],
)
def test_a_network_is_measured_unless_this_version_has_measured_it(weights, edits, version, measures, monkeypatch):
    expected, _ = load_network(weights)
    card = card_path(weights)
    card.write_text(json.dumps(json.loads(card.read_text()) | edits))
    measured = []
    monkeypatch.setattr(weights_file, "_check_card", lambda card, _: measured.append(card))
    if version:
        monkeypatch.setattr(weights_file, "__version__", version)
    network, _ = load_network(weights)
    assert bool(measured) == measures
    assert network.geometry == expected.geometry


def test_the_heads_of_a_network_are_on_its_card(tmp_path):
    network = models.build("unet", in_channels=1, num_classes=2, heads=["distance"], options={"width": 2, "depth": 1})
    path = tmp_path / "model.safetensors"
    about = {
        "metrics": {},
        "validation": [],
        "described": {"appearance": [], "objects": {}},
        "origin": provenance("test"),
    }
    save_network(path, network, classes=CLASSES, pixel_size_um=None, **about)
    loaded, card = load_network(path)
    assert (card.heads, loaded.heads, loaded.num_classes) == (["distance"], ("distance",), 2)
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(loaded(image), network.eval()(image))
    content = json.loads(card_path(path).read_text())
    card_path(path).write_text(json.dumps(content | {"heads": ["depth"]}))
    with pytest.raises(SlidemillError, match="not a model.json of Slidemill: heads.*'distance' or 'boundary'"):
        load_network(path)


def test_the_same_network_is_the_same_file(tmp_path):
    files = [write_network(tmp_path / str(number), width=2, depth=1).read_bytes() for number in range(8)]
    assert len(set(files)) == 1
