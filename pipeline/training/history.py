"""The history of a training: history.csv, and events for TensorBoard if that is installed."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from pipeline.base.files import replacing
from pipeline.base.palette import PREDICTED_RGB, TRUTH_RGB
from pipeline.training.state import HistoryRow

log = logging.getLogger(__name__)

_EVENTS = "events.out.tfevents.*"


class History:
    """Writes the history of a training as a CSV, and as events in a folder.

    Parameters
    ----------
    table : Path
        The CSV, rewritten with each row.
    folder : Path
        For the events; those of an earlier training are removed if ``step`` is 0.
    step : int
        Step after which the training continues; later events of an interrupted run are hidden.
    """

    def __init__(self, table: Path, folder: Path, step: int) -> None:
        self._table = table
        self._events: Any = None
        try:
            if step == 0:
                for old in folder.glob(_EVENTS):
                    old.unlink()
            self._events = _writer(folder, step + 1)
        except OSError as error:  # training does not need them
            log.warning("no events for TensorBoard: %s", error)

    def write(self, rows: list[HistoryRow], picture: NDArray[np.uint8] | None = None) -> None:
        """Write all rows; add the last one and a picture (rows, columns, 3) to the events."""
        with replacing(self._table) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
        if self._events is None or picture is None:
            return
        try:
            self._add_events(rows[-1], picture)
        except OSError as error:
            log.warning("no more events for TensorBoard: %s", error)
            self._events = None

    def _add_events(self, row: HistoryRow, picture: NDArray[np.uint8]) -> None:
        step = int(row["step"])
        for name, value in row.items():
            if name not in ("step", "max_steps"):
                self._events.add_scalar(name.replace("_", "/", 1) if name.startswith("dice_") else name, value, step)
        self._events.add_image("held back", picture, step, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        """Close the events."""
        if self._events is not None:
            self._events.close()


def overlay(pixels: NDArray[np.float32], truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a region of an image with the outlines of the true classes (blue) and the predicted ones (orange).

    Parameters
    ----------
    pixels : (channels, rows, columns) float32 array
        Normalized; the first three channels are shown, or the first alone.
    truth, predicted : (rows, columns) uint8 array
        Class maps.

    Returns
    -------
    (rows, columns, 3) uint8 array
    """
    shown = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    picture = (255 * np.clip(shown, 0, 1)).astype(np.uint8).transpose(1, 2, 0).copy()
    for classes, colour in ((truth, TRUTH_RGB), (predicted, PREDICTED_RGB)):
        picture[find_boundaries(classes, mode="inner")] = colour
    return picture


def _writer(folder: Path, first_step: int) -> Any:
    """Return a writer of events; None if TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  the extra `tensorboard`

    writer = SummaryWriter(folder, purge_step=first_step)
    log.info("tensorboard --logdir %s shows the training", folder.parent.parent)
    return writer
