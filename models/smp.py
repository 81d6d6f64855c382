"""Any architecture and encoder of segmentation_models_pytorch, as ``smp/ARCHITECTURE/ENCODER`` (extra ``zoo``).

Iakubovskii (2019), https://github.com/qubvel-org/segmentation_models.pytorch. Stride and
context are measured.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from models.base.interface import SegmentationModel

_GIVEN = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"}
_MOST_CELLS = 16  # down-samplings of the encoder in a stride: 8 in PAN, 7 in encoders with windows of 7 features


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
        device = torch.get_default_device()
        try:
            with torch.device("cpu"):  # parts of the library cannot be made on other devices
                network = library.create_model(
                    architecture, encoder, encoder_weights=None, in_channels=in_channels, classes=num_classes, **options
                )
            self.stride_px = _stride_px(network, in_channels)
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"smp/{variant}: {str(error).splitlines()[0]}") from error
        self.network = network.to(device)
        self.encoder_name = encoder

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
    def options(cls, **given: str) -> dict[str, object]:
        """Return the options of an architecture of the library, with their defaults."""
        variant = given["variant"]
        architecture, _ = _split(variant)
        known = _library().MODEL_ARCHITECTURES_MAPPING
        if architecture not in known:
            raise ValueError(f"unknown model 'smp/{variant}'; available: {', '.join(f'smp/{name}' for name in known)}")
        parameters = inspect.signature(known[architecture]).parameters
        return {name: parameter.default for name, parameter in parameters.items() if name not in _GIVEN}


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


def _stride_px(network: Any, in_channels: int) -> int:
    """Return the down-sampling of the encoder, or its smallest multiple such that the network takes all sizes of it.

    The network is run without its weights: shapes are enough.
    """
    tensors = chain(network.named_parameters(), network.named_buffers())
    state = {name: tensor.to("meta") for name, tensor in tensors}
    down = int(network.encoder.output_stride)
    network.eval()
    reason = "logits of another size"
    for stride in range(down, _MOST_CELLS * down + 1, down):
        image = torch.empty(1, in_channels, stride, 2 * stride, device="meta")
        try:
            logits = functional_call(network, state, image)
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error)
            continue
        if logits.shape[2:] == image.shape[2:]:
            network.train()
            return stride
    raise ValueError(f"tiles need a network that takes images of several sizes, and this one does not ({reason})")
