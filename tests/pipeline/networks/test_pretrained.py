"""Pretrained weights are loaded as far as they fit; what cannot be loaded is an error of one line."""

import dataclasses

import pytest
import safetensors.torch
import torch
import torchvision

import models
from pipeline.base.errors import SlidemillError
from pipeline.base.files import write_json
from pipeline.networks.pretrained import load_pretrained
from pipeline.slides.intensity import NORMALIZATION
from tests.support.networks import CARD, randomize_statistics, thin_options


def build(name, *, in_channels=1, num_classes=2, **options):
    torch.manual_seed(1)
    return models.build(name, in_channels=in_channels, num_classes=num_classes, options=options)


def save(network, path):
    safetensors.torch.save_file(network.state_dict(), path)
    return str(path)


def test_a_network_of_other_classes_provides_all_weights_but_the_head(tmp_path):
    source, network = build("unet", width=2), build("unet", width=2, num_classes=5)
    fresh_head = network.head.weight.clone()
    torch.nn.init.constant_(source.encoder[0][0].weight, 0.25)
    load_pretrained(network, save(source, tmp_path / "model.safetensors"))
    assert (network.encoder[0][0].weight == 0.25).all()
    assert torch.equal(network.head.weight, fresh_head)


@pytest.mark.parametrize("name", ["unet", "linknet", "fcn8s"])
@torch.inference_mode()
def test_a_network_with_other_heads_starts_with_the_classes_and_the_shared_heads(name, tmp_path):
    """The source has the heads distance and boundary, in its last layers too; the network has boundary alone."""
    both, one = (
        models.build(name, in_channels=1, num_classes=3, heads=heads, options=thin_options(name)).eval()
        for heads in (["distance", "boundary"], ["boundary"])
    )
    source = save(randomize_statistics(both), tmp_path / "model.safetensors")
    card = dataclasses.replace(CARD, heads=list(both.heads), normalization=NORMALIZATION)
    write_json(tmp_path / "model.json", card.to_dict())
    load_pretrained(one, source)
    length = one.geometry.input_px(3 * one.geometry.stride_px + 2 * one.geometry.margin_px)
    image = torch.rand(1, 1, length, length)
    torch.testing.assert_close(one(image), both(image)[:, [0, 1, 2, 4]])


@pytest.mark.parametrize(("coarse", "fine"), [("fcn32s", "fcn16s"), ("fcn16s", "fcn8s")])
def test_a_finer_fcn_starts_from_a_coarser_one(coarse, fine, tmp_path):
    source, network = build(coarse, width=1), build(fine, width=1)
    for parameter in source.parameters():
        torch.nn.init.constant_(parameter, 0.125)
    load_pretrained(network, save(source, tmp_path / "model.safetensors"))
    learned = dict(network.named_parameters())
    started = {name for name, value in learned.items() if (value == 0.125).all()}
    assert {name for name in learned if name.split(".")[0] in {"encoder", "fc6", "fc7", "score"}} <= started
    assert "up.weight" not in started


def test_a_state_dict_of_torchvision_fills_the_backbone(tmp_path):
    classifier = torchvision.models.resnet18(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    network = build("linknet", in_channels=3)
    load_pretrained(network, str(tmp_path / "resnet18.pth"))
    assert torch.equal(network.encoder.conv1.weight, classifier.conv1.weight)
    assert torch.equal(network.encoder.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)


def test_pickled_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(SlidemillError, match="evil.pth"):
        load_pretrained(build("linknet"), str(tmp_path / "evil.pth"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "options", "source", "message"),
    [
        ("unet", {"width": 2}, "imagenet", "pretrained 'imagenet': this architecture has no backbone"),
        ("unet", {"width": 2}, "missing.safetensors", "pretrained 'missing.safetensors': No such file"),
        ("unet", {"width": 2}, "corrupt.safetensors", "corrupt.safetensors': .*header"),
        ("unet", {"width": 2}, "other.safetensors", "no weight fits the encoder of this network"),
        ("linknet", {}, "corrupt.pth", "corrupt.pth"),
        ("linknet", {}, "resnet34.pth", "weights do not match, the first is 'layer1.2.bn1.bias'"),
        ("linknet", {"width": 8}, "resnet18.pth", r"has the shape \(64, 1, 7, 7\), the network has \(8, 1, 7, 7\)"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_of_one_line(name, options, source, message, in_folder):
    for file in ("corrupt.safetensors", "corrupt.pth"):
        (in_folder / file).write_bytes(b"not weights")
    save(build("unet", width=3), in_folder / "other.safetensors")
    for classifier in ("resnet18", "resnet34"):
        if source.startswith(classifier):
            torch.save(getattr(torchvision.models, classifier)(weights=None).state_dict(), in_folder / source)
    with pytest.raises(SlidemillError, match=message):
        load_pretrained(build(name, **options), source)
