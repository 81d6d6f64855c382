"""Networks compiled by ``torch.compile``: the same labels, faster on some GPUs."""

from __future__ import annotations

import logging

import torch

from models.base.folding import noise_for
from models.base.interface import SegmentationModel

log = logging.getLogger(__name__)

_SIDE_PX = 192  # convolutions of less than 20,480 values are compiled separately


def compiled(network: SegmentationModel) -> SegmentationModel:
    """Return a network compiled for windows and batches of any size; the network itself, with a warning, on failure.

    Only very small windows may need another compilation, many at once one more.

    Parameters
    ----------
    network : SegmentationModel
        Ready for prediction (:func:`pipeline.prediction.loop.make_ready`).
    """
    faster: SegmentationModel = torch.compile(network, dynamic=True)  # type: ignore[assignment]
    cells = -(-_SIDE_PX // network.geometry.stride_px)
    images = noise_for(network, batch=2, cells=(cells, cells + 1))  # for squares, only squares would be compiled
    alone, together = (windows.to(memory_format=torch.channels_last) for windows in (images[:1], images))
    try:
        with torch.inference_mode():  # after the windows are made, as in prediction: torch compiles for it
            faster(alone)  # a batch of one is compiled separately
            faster(together)
    except Exception as error:  # compiler and driver raise errors of many classes
        log.warning("prediction.compile: not used, since torch.compile failed: %s", _reason(error))
        return network
    return faster


def _reason(error: BaseException) -> str:
    """Return the class and the first line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
