"""The predictions of a batch: one zarr zip with the labels (and probabilities) of every sample.

Samples are numbered inside, and the index maps their ids to numbers: an id is data, not a path. A failed sample is in
the index with its error. An interrupted prediction continues from the unfinished file
(:mod:`pipeline.prediction.zip_journal`).
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import replacing
from pipeline.prediction.resume import JournalRecord
from pipeline.prediction.zip_journal import recover
from pipeline.tiling.grid import Grid, Region

log = logging.getLogger(__name__)

_INDEX, _JOURNAL = "index", "journal"
_CHUNK_ROWS = 512  # at most: later stages read bands of so many rows
_IS_RECORD = re.compile(rf"{_JOURNAL}/(\d+)/zarr\.json")


class PredictionWriter:
    """Writes the regions of tiles; a tile consists of whole chunks, so no chunk is written twice.

    Attributes
    ----------
    records : list of JournalRecord
        Of interrupted runs on the same samples: windows that are already written.
    """

    def __init__(self, store: ZipStore, *, num_classes: int, probabilities: bool, records: list[JournalRecord]) -> None:
        self._store = store
        self.records = records
        self._next = len(records)
        self.num_classes = num_classes
        self.keeps_probabilities = probabilities
        self._arrays: dict[str, dict[str, zarr.Array[Any]]] = {}
        self._numbers: dict[str, int] = {}
        self._errors: dict[str, tuple[str, str]] = {}

    def begin(self, sample: str, grid: Grid, glass: Iterable[Region] = ()) -> None:
        """Create the arrays of a sample; its regions of glass are background.

        Their labels are not stored: a missing chunk means zeros.
        """
        number = self._number(sample)
        if self.records:
            group: Any = zarr.open_group(self._store, path=str(number), mode="r+")
            self._arrays[sample] = dict(group.arrays())
            return
        # Rows of a chunk: at most those of a band, and whole chunks in a tile
        rows = next(rows for rows in range(min(grid.tile[0], _CHUNK_ROWS), 0, -1) if grid.tile[0] % rows == 0)
        piece = rows, grid.tile[1]
        arrays = {"labels": self._create(f"{number}/labels", grid.shape, piece, "uint8")}
        if self.keeps_probabilities:
            shape, chunks = (self.num_classes, *grid.shape), (1, *piece)
            arrays["probabilities"] = self._create(f"{number}/probabilities", shape, chunks, "float16")
            for region in glass:
                arrays["probabilities"][(0, *region.slices)] = 1
        self._arrays[sample] = arrays

    def write(self, sample: str, region: Region, labels: NDArray[np.uint8], probabilities: NDArray[Any] | None) -> None:
        """Write one region: (rows, columns) labels and, if kept, (classes, rows, columns) probabilities."""
        self._arrays[sample]["labels"][region.slices] = labels
        if probabilities is not None:
            self._arrays[sample]["probabilities"][(slice(None), *region.slices)] = probabilities

    def record(self, record: JournalRecord) -> None:
        """Add a record: an interrupted prediction continues after the last one."""
        zarr.create_group(self._store, path=f"{_JOURNAL}/{self._next}", attributes=asdict(record))
        self._next += 1

    def fail(self, sample: str, *, stage: str, error: str) -> None:
        """Note that a sample has no prediction, the reason, and the stage that found it."""
        self._number(sample)
        self._errors[sample] = (stage, error)

    def finish(self, provenance: dict[str, Any]) -> None:
        """Write the index; nothing can be added after it."""
        samples = {
            sample: {"number": number, "error": self._errors.get(sample)} for sample, number in self._numbers.items()
        }
        zarr.create_group(self._store, path=_INDEX, attributes={"samples": samples, "provenance": provenance})

    def _number(self, sample: str) -> int:
        return self._numbers.setdefault(sample, len(self._numbers))

    def _create(self, path: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> zarr.Array[Any]:
        return zarr.create_array(self._store, name=path, shape=shape, chunks=chunks, dtype=dtype, fill_value=0)


@contextmanager
def write_predictions(
    path: Path, *, num_classes: int, probabilities: bool, identity: str
) -> Iterator[PredictionWriter]:
    """Open a writer; the file appears under its name when the block ends without an exception.

    Otherwise the recorded part is kept beside it, for the next run with the same ``identity``: a hash of slides,
    settings and network.
    """
    with replacing(path, keep=True) as temporary:
        records = _recover_records(temporary, identity)
        with ZipStore(temporary, mode="a" if records else "w") as store:
            if not records:
                zarr.create_group(store, attributes={"identity": identity})
            yield PredictionWriter(store, num_classes=num_classes, probabilities=probabilities, records=records)


def _recover_records(path: Path, identity: str) -> list[JournalRecord]:
    names = recover(path, lambda name: _IS_RECORD.fullmatch(name) is not None)
    with zipfile.ZipFile(path) if names else nullcontext() as archive:
        if archive is None:
            return []
        if json.loads(archive.read("zarr.json"))["attributes"].get("identity") != identity:
            log.info("%s is of other slides, settings or weights: prediction starts from the beginning", path)
            return []
        records = [json.loads(archive.read(name))["attributes"] for name in names if _IS_RECORD.fullmatch(name)]
        return [JournalRecord.from_dict(record) for record in records]


def network_sha256(path: Path) -> str | None:
    """Return the SHA-256 of the network that predicted a batch; None if the file does not have it."""
    with ZipStore(path, mode="r") as store:
        origin: Any = zarr.open_group(store, path=_INDEX, mode="r").attrs["provenance"]
        weights: str | None = origin.get("sha256", {}).get("weights")
        return weights


@contextmanager
def open_prediction(path: Path, sample: str) -> Iterator[zarr.Group]:
    """Open the prediction of one sample: a group with ``labels`` (rows, columns) and perhaps ``probabilities``.

    Raises
    ------
    SlidemillError
        If the sample failed, with the recorded reason and stage; or if the file does not have it.
    """
    with ZipStore(path, mode="r") as store:
        samples: Any = zarr.open_group(store, path=_INDEX, mode="r").attrs["samples"]
        if sample not in samples:
            raise SlidemillError(f"{path}: has no prediction of {sample!r}; remove it and run the workflow again")
        if error := samples[sample]["error"]:
            raise SlideError(error[1], stage=error[0])
        yield zarr.open_group(store, path=str(samples[sample]["number"]), mode="r")
