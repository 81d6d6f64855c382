"""A network compiled by ``torch.compile``: the same labels, faster on some GPUs; as it was where that fails."""

from __future__ import annotations

import logging

import torch

from models.folding import noise_for
from models.interface import SegmentationModel

log = logging.getLogger(__name__)


def compiled(network: SegmentationModel) -> SegmentationModel:
    """Return a network compiled for windows and batches of any size; itself, with a warning, where that fails.

    Parameters
    ----------
    network : SegmentationModel
        Ready for prediction (:func:`pipeline.segmentation.make_ready`).
    """
    faster: SegmentationModel = torch.compile(network, dynamic=True)  # type: ignore[assignment]
    images = noise_for(network, batch=2, cells=(4, 5))  # of sides that are equal it would take squares alone
    try:
        with torch.inference_mode():
            for windows in (images[:1], images):  # one alone is compiled apart from all other numbers
                faster(windows.to(memory_format=torch.channels_last))
    except Exception as error:  # the compiler, the driver and every pass between them raise what they like
        log.warning("prediction.compile: going on without, since torch.compile failed: %s", _reason(error))
        return network
    return faster


def _reason(error: BaseException) -> str:
    """Return the first line of what an error says, and its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
