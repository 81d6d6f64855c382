"""A network compiled by ``torch.compile``: the same labels, faster on some GPUs; as it was where that fails."""

from __future__ import annotations

import logging

import torch

from models.base.folding import noise_for
from models.base.interface import SegmentationModel

log = logging.getLogger(__name__)

_SIDE_PX = 192  # convolutions of less than 20,480 values are computed in another way, and compiled anew


def compiled(network: SegmentationModel) -> SegmentationModel:
    """Return a network compiled for windows and batches of any size; itself, with a warning, where that fails.

    Very small windows, and many at once, may be compiled for once more; no size is by itself.

    Parameters
    ----------
    network : SegmentationModel
        Ready for prediction (:func:`pipeline.prediction.loop.make_ready`).
    """
    faster: SegmentationModel = torch.compile(network, dynamic=True)  # type: ignore[assignment]
    cells = -(-_SIDE_PX // network.geometry.stride_px)
    images = noise_for(network, batch=2, cells=(cells, cells + 1))  # of equal sides it would take squares alone
    alone, together = (windows.to(memory_format=torch.channels_last) for windows in (images[:1], images))
    try:
        with torch.inference_mode():  # entered after the windows were made, as in prediction: tensors differ by it
            faster(alone)  # one alone is compiled apart from all other numbers
            faster(together)
    except Exception as error:  # the compiler, the driver and every pass between them raise what they like
        log.warning("prediction.compile: going on without, since torch.compile failed: %s", _reason(error))
        return network
    return faster


def _reason(error: BaseException) -> str:
    """Return the first line of what an error says, and its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
