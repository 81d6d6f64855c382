"""Networks that tests make: untrained, with random statistics in their batch normalization."""

from __future__ import annotations

from pathlib import Path

import torch

import models
from models.base.geometry import Geometry
from models.base.interface import SegmentationModel
from pipeline.base.files import provenance
from pipeline.networks.model_card import ModelCard
from pipeline.networks.weights_file import save_network

CLASSES = ["background", "object"]
PER_PIXEL = [name for name in models.available() if not models.detects_objects(name)]
CARD = ModelCard(
    architecture="unet",
    options={},
    classes=CLASSES,
    in_channels=1,
    geometry=Geometry(stride_px=16, context_px=94),
    pixel_size_um=None,
    normalization={},
    metrics={},
    validation=[],
    appearance=[],
    parameters=10**6,
    bytes_per_px=500,
)


def architecture(name: str) -> type[SegmentationModel]:
    """The class of an architecture."""
    with torch.device("meta"):
        return type(models.build(name, in_channels=1, num_classes=1))


def thin_options(name: str) -> dict[str, object]:
    """Options that make an architecture, or an ensemble of two, small."""
    if name == "ensemble":
        member = {"architecture": "unet", "options": {"width": 2, "depth": 1}}
        return {"members": [member] * 2, "symmetries": "flips"}
    more = {"hidden": 8} if name == "sliding_window" else {"dropout": 0.0} if name.startswith("fcn") else {}
    return {"width": 4} | more


def has_finite_context(name: str) -> bool:
    """Whether tiles of the network can be exact."""
    return models.build(name, in_channels=1, num_classes=1, options=thin_options(name)).geometry.context_px is not None


def network_with_batch_stats(
    name: str = "unet", *, in_channels: int = 1, num_classes: int = 2, **options: object
) -> SegmentationModel:
    """A network in evaluation mode, with batch normalization that is not the identity."""
    torch.manual_seed(0)
    network = models.build(name, in_channels=in_channels, num_classes=num_classes, options=options)
    return randomize_statistics(network).eval()


def randomize_statistics(network: torch.nn.Module) -> torch.nn.Module:
    """Give batch normalization random statistics."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return network


def write_network(folder: Path, name: str = "unet", **options: object) -> Path:
    """Write model.safetensors and model.json of an untrained network; return the path of the weights."""
    weights = folder / "model.safetensors"
    save_network(
        weights,
        network_with_batch_stats(name, **options),
        classes=CLASSES,
        pixel_size_um=None,
        metrics={},
        validation=[],
        described={},
        origin=provenance("test"),
    )
    return weights
