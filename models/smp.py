"""Any architecture and encoder of segmentation_models_pytorch, as ``smp/ARCHITECTURE/ENCODER`` (extra ``zoo``).

Iakubovskii (2019), https://github.com/qubvel-org/segmentation_models.pytorch. Stride and
context are measured.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.base.interface import SegmentationModel

_GIVEN = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"}


class SMP(SegmentationModel):
    """A network of segmentation_models_pytorch.

    Parameters
    ----------
    variant : str
        ``ARCHITECTURE/ENCODER``, for example ``unetplusplus/resnet34``.
    **options
        Keyword arguments of the architecture's class.
    """

    paper = "segmentation_models_pytorch, https://github.com/qubvel-org/segmentation_models.pytorch"
    narrow_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, *, in_channels: int, num_classes: int, variant: str, **options: Any) -> None:
        super().__init__()
        architecture, encoder = _split(variant)
        library = _library()
        try:
            self.network = library.create_model(
                architecture, encoder, encoder_weights=None, in_channels=in_channels, classes=num_classes, **options
            )
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"smp/{variant}: {str(error).splitlines()[0]}") from error
        self.encoder_name = encoder
        self.stride_px = _stride_px(self.network.encoder, in_channels)

    @property
    def encoder(self) -> Any:
        """The encoder of the network."""
        return self.network.encoder

    def forward(self, image: Tensor) -> Tensor:
        """Return (N, num_classes, H, W) logits."""
        logits: Tensor = self.network(image)
        return logits

    def load_imagenet(self) -> None:
        """Load the library's ImageNet weights of the encoder, from its cache or its server."""
        first = next(parameter for parameter in self.encoder.parameters() if parameter.ndim == 4)
        try:
            trained = _library().encoders.get_encoder(self.encoder_name, in_channels=first.shape[1], weights="imagenet")
            self.encoder.load_state_dict(trained.state_dict())
        except Exception as error:  # the client of the hub raises many classes
            raise OSError(
                f"ImageNet weights of {self.encoder_name} are not on this machine and cannot be downloaded "
                f"({type(error).__name__}); run once where there is a network, or set `pretrained` to the path of a "
                "model.safetensors"
            ) from error

    @classmethod
    def options(cls, **given: str) -> list[str]:
        """Return the names of the options of an architecture of the library."""
        variant = given["variant"]
        architecture, _ = _split(variant)
        known = _library().MODEL_ARCHITECTURES_MAPPING
        if architecture not in known:
            raise ValueError(f"unknown model 'smp/{variant}'; available: {', '.join(f'smp/{name}' for name in known)}")
        return [name for name in inspect.signature(known[architecture]).parameters if name not in _GIVEN]


def _split(variant: str) -> tuple[str, str]:
    architecture, _, encoder = variant.partition("/")
    if not architecture or not encoder:
        raise ValueError(
            f"unknown model 'smp/{variant}'; write smp/ARCHITECTURE/ENCODER, as in smp/unetplusplus/resnet34"
        )
    return architecture.lower(), encoder


def _library() -> Any:
    try:
        import segmentation_models_pytorch  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("models named smp/... need the extra zoo: pip install 'slidemill[zoo]'") from error
    return segmentation_models_pytorch


def _stride_px(encoder: nn.Module, in_channels: int) -> int:
    """Return the size of the input relative to that of the coarsest features."""
    length = 256
    with torch.no_grad():
        was_training = encoder.training
        features = encoder.eval()(torch.zeros(1, in_channels, length, length))
        encoder.train(was_training)
    return int(max(length // feature.shape[-1] for feature in features if feature.shape[-1]))
