"""The architectures are the published ones: parameter counts, backbones, and equality with other implementations."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models.segmentation import deeplabv3_resnet50

import models
from models.base.cost import count_parameters
from models.base.imagenet import imagenet_weights
from models.layers.backbones import adapt_channels
from tests.support.networks import randomize_statistics

COUNTS = [
    ("unet", 1, 2, {"width": 64, "padding": "valid", "normalization": "none"}, 31_030_658),
    ("unet", 1, 2, {"width": 64, "padding": "valid", "normalization": "batch"}, 31_042_434),
    ("attention_unet", 3, 1, {}, 34_878_573),
    ("fcn32s", 3, 21, {}, 136_152_917),
    ("fcn16s", 3, 21, {}, 134_815_994),
    ("fcn8s", 3, 21, {}, 134_489_759),
    ("segnet", 3, 12, {}, 29_449_932),
    ("deconvnet", 3, 21, {}, 251_805_653),
    ("linknet", 3, 21, {}, 11_535_893),
    ("pspnet", 3, 21, {"auxiliary": False}, 46_592_597),
    ("pspnet", 3, 21, {}, 48_957_802),
    ("deeplabv3", 3, 21, {}, 42_004_074),
    ("sliding_window", 1, 2, {}, 816 + 57_648 + 2 * 36_912 + 86_600 + 402),
    ("plain_fcn", 1, 2, {"normalization": "none"}, 320 + 6 * 9_248 + 66),
]
BACKBONES = {
    "fcn32s": "vgg16",
    "fcn16s": "vgg16",
    "fcn8s": "vgg16",
    "segnet": "vgg16_bn",
    "deconvnet": "vgg16_bn",
    "linknet": "resnet18",
    "pspnet": "resnet50",
    "deeplabv3": "resnet50",
}


@pytest.mark.parametrize(("name", "channels", "classes", "options", "count"), COUNTS)
def test_parameter_counts_are_the_published_ones(name, channels, classes, options, count):
    with torch.device("meta"):
        network = models.build(name, in_channels=channels, num_classes=classes, options=options)
    assert count_parameters(network) == count


@pytest.fixture(scope="module")
def classifiers():
    """Classifiers of torchvision with random weights; nothing is downloaded."""
    torch.manual_seed(0)
    return {
        name: randomize_statistics(getattr(torchvision.models, name)(weights=None)).eval()
        for name in set(BACKBONES.values())
    }


@pytest.mark.parametrize("name", ["fcn8s", "segnet", "linknet", "pspnet", "deeplabv3"])
@torch.inference_mode()
def test_backbones_give_the_features_of_torchvision(name, classifiers):
    classifier = classifiers[BACKBONES[name]]
    network = models.build(name, in_channels=3, num_classes=2).eval()
    assert network.backbone == BACKBONES[name]
    network.load_backbone(classifier.state_dict())
    image = torch.rand(1, 3, 64, 64)
    if name in {"fcn8s", "segnet"}:
        features = image
        for level in network.encoder:
            features = F.max_pool2d(level(features), 2)
        expected = classifier.features(image)
    else:  # the stages that are not dilated
        features = network.encoder(image)[2]
        expected = classifier.layer2(classifier.layer1(stem(classifier, image)))
    torch.testing.assert_close(features, expected)


def stem(resnet, image):
    return resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(image))))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_missing_weight_is_an_error(name, classifiers):
    network = models.build(name, in_channels=3, num_classes=2)
    state = dict(classifiers[BACKBONES[name]].state_dict())
    first = next(iter(state))
    with pytest.raises(ValueError, match=f"1 weights do not match, the first is '{first.removeprefix('features.')}'"):
        network.load_backbone({key: value for key, value in state.items() if key != first})


@torch.inference_mode()
def test_fully_connected_layers_become_convolutions(classifiers):
    """On 224x224 pixels, the centre of the dense fc7 is the fc7 of the classifier."""
    classifier = classifiers["vgg16"]
    network = models.build("fcn32s", in_channels=3, num_classes=2).eval()
    network.load_backbone(classifier.state_dict())
    image = torch.rand(1, 3, 224, 224)
    dense = network.fc7(network.fc6(classifier.features(image)).relu())[0, :, 3, 3]
    torch.testing.assert_close(dense, classifier.classifier[:4](classifier.features(image).flatten(1))[0])


@torch.inference_mode()
def test_dilated_resnet_is_that_of_torchvision():
    torch.manual_seed(0)
    dilated = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    theirs = randomize_statistics(dilated).eval()
    network = models.build("pspnet", in_channels=3, num_classes=2).eval()
    network.load_backbone(theirs.state_dict())
    image = torch.rand(1, 3, 64, 64)
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem(theirs, image)))))
    torch.testing.assert_close(network.encoder(image)[-1], expected)


@torch.inference_mode()
def test_deeplabv3_is_that_of_torchvision():
    torch.manual_seed(0)
    published = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=4, aux_loss=True)
    theirs = randomize_statistics(published).eval()
    network = models.build("deeplabv3", in_channels=3, num_classes=4).eval()
    # Both list their layers in the order of the paper's figure, torchvision with the auxiliary head last.
    layers = network.state_dict(keep_vars=True).items()
    own = dict(sorted(layers, key=lambda item: item[0].startswith("auxiliary")))
    other = theirs.state_dict()
    assert [value.shape for value in own.values()] == [value.shape for value in other.values()]
    for target, value in zip(own.values(), other.values(), strict=True):
        target.copy_(value)
    image = torch.rand(1, 3, 72, 64)
    torch.testing.assert_close(network(image), theirs(image)["out"])
    torch.testing.assert_close(network.logits_to_train(image)[1][1], theirs(image)["aux"])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@torch.inference_mode()
def test_kernels_for_other_channels_respond_to_grey_as_to_rgb(channels):
    kernels, grey = torch.randn(5, 3, 7, 7), torch.rand(2, 1, 20, 20)
    adapted = adapt_channels(kernels, channels)
    assert adapted.shape == (5, channels, 7, 7)
    ours, rgb = (F.conv2d(grey.expand(-1, len(one[0]), -1, -1), one) for one in (adapted, kernels))
    torch.testing.assert_close(ours, rgb, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_backbone_loads_into_other_channels(channels, classifiers):
    network = models.build("linknet", in_channels=channels, num_classes=2)
    network.load_backbone(classifiers["resnet18"].state_dict())
    assert network.encoder.conv1.weight.shape == (64, channels, 7, 7)


def test_imagenet_weights_that_cannot_be_downloaded_are_an_error_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    with pytest.raises(OSError, match=rf"resnet18 are not on this machine .*{tmp_path}.*or set `pretrained`"):
        imagenet_weights("resnet18")


def test_imagenet_weights_come_from_the_cache(tmp_path, monkeypatch, classifiers):
    """A file under the name that torchvision gives it is used without a download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    state = classifiers["resnet18"].state_dict()
    torch.save(state, tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    loaded = imagenet_weights("resnet18")
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())


@torch.inference_mode()
def test_the_dense_network_is_the_patch_network_at_every_pixel():
    torch.manual_seed(0)
    network = models.build("sliding_window", in_channels=2, num_classes=3, options={"width": 5, "hidden": 7}).double()
    image = torch.rand(1, 2, 99, 103, dtype=torch.float64)
    dense = network(image)[0]
    windows = image[0].unfold(1, 95, 1).unfold(2, 95, 1).permute(1, 2, 0, 3, 4).reshape(-1, 2, 95, 95)
    patch_by_patch = network.classify(windows).reshape(5, 9, 3).permute(2, 0, 1)
    np.testing.assert_allclose(dense, patch_by_patch, rtol=0, atol=1e-12)


@torch.inference_mode()
def test_fcn_starts_with_bilinear_up_sampling():
    network = models.build("fcn8s", in_channels=1, num_classes=3, options={"width": 1})
    scores = torch.rand(1, 3, 6, 5)
    expected = F.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=False)
    torch.testing.assert_close(network.up(scores)[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8])


def test_finer_fcns_contain_the_weights_of_coarser_ones():
    """All weights of a coarser FCN are in the finer one, but for the last up-sampling."""
    networks = [
        models.build(name, in_channels=1, num_classes=2, options={"width": 1}) for name in ("fcn32s", "fcn16s", "fcn8s")
    ]
    for coarse, fine in pairwise(networks):
        shared = {name for name, value in coarse.state_dict().items() if name != "up.weight"}
        assert shared <= set(fine.state_dict())
