"""The result of a slide while it is predicted: scores of its windows go in, its file and its measurements come out.

It is complete with its last window. All but the measurements runs in the thread that writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.base.detection import Detection
from pipeline.base.errors import SlideError
from pipeline.base.files import unfinished
from pipeline.prediction.blending import Blend, Mismatch, Probabilities
from pipeline.prediction.detections.windows import contributed
from pipeline.prediction.forward import crop_slices, label
from pipeline.prediction.measurements import Measurements
from pipeline.prediction.resume import resume_after
from pipeline.prediction.store import PredictionWriter, write_prediction
from pipeline.tiling.grid import Tile
from pipeline.tiling.plan import SlidePlan


@dataclass(frozen=True, kw_only=True)
class Target:
    """A slide to predict.

    Attributes
    ----------
    path : Path
        Prediction to write (zarr zip).
    identity : str
        See :func:`pipeline.prediction.store.write_prediction`; so is ``provenance``.
    """

    sample: str
    plan: SlidePlan
    path: Path
    identity: str
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Scores(NamedTuple):
    """Output of the network for N windows, (N, ...): labels, or probabilities to blend, or both if both are kept.

    ``finite`` says of which windows all logits are finite, ``uncertain`` how many pixels of its part are uncertain.
    ``heads`` are 255 for 1; in windows to blend, they are the channels after the probabilities. ``objects`` are those
    of whole windows, of a network that detects them.
    """

    finite: NDArray[np.bool_]
    labels: NDArray[np.uint8] | None
    uncertain: NDArray[np.int64] | None
    probabilities: Probabilities | None
    heads: NDArray[np.uint8] | None = None
    objects: list[list[Detection]] | None = None


class SlideResult:
    """The result of one slide; one that was interrupted continues from its unfinished file.

    Parameters
    ----------
    num_classes : int
        Of the network.
    probabilities : bool
        Whether they are kept.
    heads : sequence of str
        Names of the heads that are kept.
    objects : bool
        Whether the network detects them.
    opened : ExitStack
        Closes the file if the job ends early; what is recorded is kept.

    Attributes
    ----------
    error : SlideError or None
        Why the slide cannot be read.
    progress : Progress
        What is done.
    """

    def __init__(
        self,
        target: Target,
        *,
        num_classes: int,
        probabilities: bool,
        heads: Sequence[str],
        objects: bool,
        opened: ExitStack,
    ) -> None:
        self.target = target
        self.keeps_probabilities = probabilities
        self.heads = heads
        self.has_objects = objects
        self.error: SlideError | None = None
        self._num_classes = num_classes
        self._opened = opened.enter_context(ExitStack())
        records = self._writer.records if unfinished(target.path).is_file() else []
        self.progress = resume_after(records, target.plan.grid)
        left = target.plan.count - self.progress.windows
        grid = target.plan.grid
        blend = partial(Blend, grid, num_classes, len(heads), rows=self.progress.rows, windows=left)
        self._blend = blend() if grid.overlap_px else None

    @cached_property
    def _writer(self) -> PredictionWriter:
        plan = self.target.plan
        writer = self._opened.enter_context(
            write_prediction(
                self.target.path,
                plan.grid,
                num_classes=self._num_classes,
                probabilities=self.keeps_probabilities,
                heads=self.heads,
                identity=self.target.identity,
                provenance=self.target.provenance,
                glass=(tile.write for tile in plan.glass()),
            )
        )
        if self.has_objects:
            writer.begin_objects()
        return writer

    @property
    def is_complete(self) -> bool:
        """Whether all windows are written."""
        return self.progress.windows == self.target.plan.count

    def remaining(self) -> SlidePlan:
        """Return the plan of the windows that are still to do, at least one."""
        return self.target.plan.without(self.progress.windows) if self.progress.windows else self.target.plan

    def write(self, tile: Tile, scores: Scores, index: int) -> None:
        """Write a window: an exact tile at once, a blended one when its neighbours are done."""
        if scores.labels is None:
            assert scores.probabilities is not None
            self._write_blended(tile, scores.probabilities[index])
        else:
            assert scores.uncertain is not None
            inside = crop_slices(tile)
            kept = None if scores.probabilities is None else scores.probabilities[index, :, *inside]
            self.progress.uncertain_px += int(scores.uncertain[index])
            heads = None if scores.heads is None else scores.heads[index, :, *inside]
            labels = _in_tile(tile, scores.labels[index, *inside])
            assert labels is not None
            self._writer.write(tile.write, labels, _in_tile(tile, kept, certain=True), _in_tile(tile, heads))
        if scores.objects is not None:
            found = list(contributed(scores.objects[index], tile, self.target.plan.grid.shape))
            self._writer.write_objects(self.progress.windows, found)
        self.progress.windows += 1

    def _write_blended(self, tile: Tile, probabilities: Probabilities) -> None:
        blend, progress = self._blend, self.progress
        assert blend is not None
        before = Mismatch(differing_px=blend.mismatch.differing_px, compared_px=blend.mismatch.compared_px)
        for region, channels in blend.add(tile, probabilities):
            blended, heads = channels[: self._num_classes], channels[self._num_classes :]
            progress.uncertain_px += int(label(torch.from_numpy(blended)[None].log())[1].sum())
            labels = blended.argmax(axis=0).astype(np.uint8)
            kept = np.rint(255 * heads).astype(np.uint8) if self.heads else None
            self._writer.write(region, labels, blended if self.keeps_probabilities else None, kept)
        progress.rows = blend.rows
        progress.differing_px += blend.mismatch.differing_px - before.differing_px
        progress.compared_px += blend.mismatch.compared_px - before.compared_px

    def record(self) -> None:
        """Record the progress."""
        self._writer.record(self.progress)

    def complete(self) -> None:
        """Complete the file: it appears under its name."""
        _ = self._writer  # a slide without a window to segment has none yet
        self._opened.close()

    def give_up(self, error: SlideError) -> None:
        """Remove the file of a slide that cannot be read."""
        self.error = error
        self._opened.__exit__(SlideError, error, error.__traceback__)

    def measurements(self, *, device: str, devices: int, precision: str, threads: int) -> Measurements:
        """Return what was measured on a complete slide."""
        plan, done = self.target.plan, self.progress
        pixels = sum(math.prod(tile.part.shape) for tile in plan.tiles())
        mismatch = Mismatch(differing_px=done.differing_px, compared_px=done.compared_px)
        return Measurements(
            pixels=pixels,
            wall_s=done.seconds["wall"],
            network_s=done.seconds["network"],
            reading_s=done.idle_s("reading"),
            writing_s=done.idle_s("writing"),
            uncertain=done.uncertain_px / math.prod(plan.grid.shape) if pixels else None,  # glass included
            tile_mismatch=mismatch.share if plan.grid.overlap_px else None,
            differing_px=done.differing_px,
            compared_px=done.compared_px,
            probabilities=self.keeps_probabilities,
            heads=bool(self.heads),
            objects=self.has_objects,
            device=device,
            devices=devices,
            precision=precision,
            threads=threads,
        )


def _in_tile(tile: Tile, values: NDArray[Any] | None, *, certain: bool = False) -> NDArray[Any] | None:
    """Return the (..., rows, columns) values of the part of a tile with the rest of it: 0, that is background.

    If they are probabilities, the first of their channels is ``certain`` there: 1.
    """
    if values is None or tile.part == tile.write:
        return values
    whole = np.zeros((*values.shape[:-2], *tile.write.shape), values.dtype)
    if certain:
        whole[0] = 1
    top, left = tile.part.top - tile.write.top, tile.part.left - tile.write.left
    rows, columns = tile.part.shape
    whole[..., top : top + rows, left : left + columns] = values
    return whole
