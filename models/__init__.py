"""The network architectures, by name.

To add an architecture, write its file and add a line to the table below. Listing the names does not import torch; the
module of an architecture is imported on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from models.base.geometry import Geometry
from models.base.heads import in_order

if TYPE_CHECKING:
    from models.base.interface import SegmentationModel

__all__ = ["Geometry", "available", "build", "detects_objects", "is_known", "options_of"]

_MODELS = {
    "attention_unet": "models.attention_unet:AttentionUNet",
    "deconvnet": "models.deconvnet:DeconvNet",
    "deeplabv3": "models.deeplabv3:DeepLabV3",
    "fcn16s": "models.fcn:FCN16s",
    "fcn32s": "models.fcn:FCN32s",
    "fcn8s": "models.fcn:FCN8s",
    "linknet": "models.linknet:LinkNet",
    "plain_fcn": "models.plain_fcn:PlainFCN",
    "pspnet": "models.pspnet:PSPNet",
    "segnet": "models.segnet:SegNet",
    "sliding_window": "models.sliding_window:SlidingWindow",
    "unet": "models.unet:UNet",
}
_DETECTORS = {"mask_rcnn": "models.mask_rcnn:MaskRCNN"}
_SMP, _SMP_PREFIX = "models.smp:SMP", "smp/"  # smp/ARCHITECTURE/ENCODER
_ENSEMBLE = {"ensemble": "models.ensemble:Ensemble"}  # made of trained networks, not trained itself


def available() -> list[str]:
    """Return the names of all architectures, sorted."""
    return sorted(_MODELS | _DETECTORS)


def is_known(name: str) -> bool:
    """Return whether ``name`` is in the table, or has the form of one of segmentation_models_pytorch."""
    return name in _MODELS | _DETECTORS or name.startswith(_SMP_PREFIX)


def detects_objects(name: str) -> bool:
    """Return whether an architecture finds objects one by one (:mod:`models.base.detection`), instead of pixels."""
    return name in _DETECTORS


def options_of(name: str) -> dict[str, object]:
    """Return the options of an architecture, with their defaults."""
    architecture, given = _find(name)
    return architecture.options(**given)


def build(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    heads: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> SegmentationModel:
    """Build the network ``name`` with random weights.

    Parameters
    ----------
    name : str
        One of :func:`available`.
    in_channels, num_classes : int
        Channels of the image and classes of the logits, each at least 1.
    heads : sequence of str
        What is learned beside the classes, of :data:`models.base.heads.HEADS`: one more channel of the output each.
    options : mapping, optional
        Keyword arguments of the architecture, for example ``{"width": 32}``.

    Raises
    ------
    ValueError
        If the architecture, a head or an option is unknown, or the value of an option is not allowed.
    """
    architecture, given = _find(name)
    known = architecture.options(**given)
    unknown = sorted(set(options or {}) - known.keys())
    if unknown:
        raise ValueError(f"model {name!r} has no option {unknown[0]!r}; available: {', '.join(known)}")
    if heads and detects_objects(name):
        raise ValueError(f"{name} finds objects one by one and has no heads; remove {', '.join(heads)}")
    outputs = num_classes + len(heads)
    network = architecture(in_channels=in_channels, num_classes=outputs, **given, **dict(options or {}))
    network.name, network.chosen_options, network.heads = name, dict(options or {}), in_order(heads)
    return network


def _find(name: str) -> tuple[type[SegmentationModel], dict[str, str]]:
    """Return the class of an architecture, and the arguments that are part of its name."""
    if name.startswith(_SMP_PREFIX):
        place, given = _SMP, {"variant": name.removeprefix(_SMP_PREFIX)}
    else:
        place, given = (_MODELS | _DETECTORS | _ENSEMBLE).get(name, ""), {}
    if not place:
        raise ValueError(f"unknown model {name!r}; available: {', '.join(available())}")
    module, _, attribute = place.partition(":")
    architecture: type[SegmentationModel] = getattr(import_module(module), attribute)
    return architecture, given
