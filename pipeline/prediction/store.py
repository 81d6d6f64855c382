"""The prediction of one sample: a zarr zip with ``labels``, and perhaps ``probabilities`` and ``heads``, at its root.

That of a network that detects objects has these too (:mod:`pipeline.prediction.detections.stored`).

Its attributes have the provenance, and the names of the heads. An interrupted prediction continues from the unfinished
file (:mod:`pipeline.prediction.zip_journal`), in which the progress is recorded.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.core.array_spec import ArrayConfigParams
from zarr.storage import ZipStore

from models.base.detection import Detection
from pipeline.base.arrays import LazyArray
from pipeline.base.errors import SlideError, SlidemillError
from pipeline.base.files import replacing
from pipeline.prediction.detections.stored import create_group, write_objects
from pipeline.prediction.resume import Progress
from pipeline.prediction.zip_journal import recover
from pipeline.tiling.grid import Grid, Region

log = logging.getLogger(__name__)

_LABELS, _PROBABILITIES, _HEADS, _JOURNAL = "labels", "probabilities", "heads", "journal"
_IS_RECORD = re.compile(rf"{_JOURNAL}/(\d+)/zarr\.json")


class PredictionWriter:
    """Writes the regions of tiles; a tile consists of whole chunks, so no chunk is written twice.

    Attributes
    ----------
    records : list of Progress
        Of interrupted runs: what is already written.
    """

    def __init__(self, store: ZipStore, arrays: dict[str, zarr.Array[Any]], records: list[Progress]) -> None:
        self.records = records
        self._store = store
        self._arrays = arrays
        self._next = len(records)

    def write(
        self,
        region: Region,
        labels: NDArray[np.uint8],
        probabilities: NDArray[Any] | None = None,
        heads: NDArray[np.uint8] | None = None,
    ) -> None:
        """Write one region: (rows, columns) labels and, if kept, (classes or heads, rows, columns) of the others."""
        self._arrays[_LABELS][region.slices] = labels
        for name, values in ((_PROBABILITIES, probabilities), (_HEADS, heads)):
            if values is not None:
                self._arrays[name][(slice(None), *region.slices)] = values

    def begin_objects(self) -> None:
        """Create their group, unless an interrupted run has done so."""
        if not self.records:
            create_group(self._store)

    def write_objects(self, window: int, found: Sequence[Detection]) -> None:
        """Write the objects of a window, whose number is new."""
        write_objects(self._store, window, found)

    def record(self, progress: Progress) -> None:
        """Add a record: an interrupted prediction continues after the last one."""
        if self._next == 0:
            zarr.create_group(self._store, path=_JOURNAL)
        zarr.create_group(self._store, path=f"{_JOURNAL}/{self._next}", attributes=asdict(progress))
        self._next += 1


@contextmanager
def write_prediction(
    path: Path,
    grid: Grid,
    *,
    num_classes: int,
    probabilities: bool,
    heads: Sequence[str] = (),
    identity: str,
    provenance: Mapping[str, Any] | None = None,
    glass: Iterable[Region] = (),
) -> Iterator[PredictionWriter]:
    """Open a writer; the file appears under its name when the block ends without an exception.

    Otherwise the recorded part is kept beside it, for the next attempt with the same ``identity``; except after a
    ``SlideError``: then the slide must change.

    Parameters
    ----------
    grid : Grid
        Of the slide.
    num_classes : int
        Of the probabilities.
    probabilities : bool
        Whether they are kept.
    heads : sequence of str
        Names of the heads that are kept.
    identity : str
        A hash of all that decides the result: slide, settings, network.
    provenance : mapping
        What the file is made from, as JSON types.
    glass : iterable of Region
        Regions that will not be written: background. Their labels are not stored: a missing chunk means zeros.
    """
    with replacing(path, keep=True) as temporary:
        try:
            records = _recover_records(temporary, identity)
            with ZipStore(temporary, mode="a" if records else "w") as store:
                if records:
                    arrays = _arrays_in(zarr.open_group(store, mode="r+"))
                else:
                    about = {"identity": identity, "provenance": dict(provenance or {}), "heads": list(heads)}
                    zarr.create_group(store, attributes=about)
                    arrays = _create_arrays(store, grid, num_classes if probabilities else 0, len(heads), glass)
                yield PredictionWriter(store, arrays, records)
        except SlideError:
            shutil.rmtree(temporary.parent, ignore_errors=True)
            raise


def _create_arrays(
    store: ZipStore, grid: Grid, num_probabilities: int, num_heads: int, glass: Iterable[Region]
) -> dict[str, zarr.Array[Any]]:
    piece = grid.piece_rows, grid.tile[1]
    config: ArrayConfigParams = {"write_empty_chunks": True}  # to look for zeros takes as long as to compress
    # Smaller and faster than the default: of numbers that differ little from their neighbours, most bits are equal.
    codec = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", blocksize=2**20)
    create = partial(zarr.create_array, store, fill_value=0, compressors=codec, config=config)
    arrays = {_LABELS: create(name=_LABELS, shape=grid.shape, chunks=piece, dtype="uint8")}
    if num_probabilities:
        shape = num_probabilities, *grid.shape
        kept = create(name=_PROBABILITIES, shape=shape, chunks=(1, *piece), dtype="float16")
        for region in glass:
            kept[(0, *region.slices)] = 1
        arrays[_PROBABILITIES] = kept
    if num_heads:
        arrays[_HEADS] = create(name=_HEADS, shape=(num_heads, *grid.shape), chunks=(1, *piece), dtype="uint8")
    return arrays


def _arrays_in(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    return {name: group[name] for name in (_LABELS, _PROBABILITIES, _HEADS) if name in group}  # type: ignore[misc]


def _recover_records(path: Path, identity: str) -> list[Progress]:
    names = recover(path, lambda name: _IS_RECORD.fullmatch(name) is not None)
    if not names:
        return []
    with zipfile.ZipFile(path) as archive:
        if json.loads(archive.read("zarr.json"))["attributes"].get("identity") != identity:
            log.info("%s is of another slide, settings or weights: prediction starts from the beginning", path)
            return []
        records = [json.loads(archive.read(name))["attributes"] for name in names if _IS_RECORD.fullmatch(name)]
        return [Progress(**record) for record in records]


@contextmanager
def open_prediction(path: Path) -> Iterator[zarr.Group]:
    """Open the prediction of a sample: a group with ``labels``, and perhaps ``probabilities`` and ``heads``.

    Raises
    ------
    SlidemillError
        If the file does not exist or is damaged.
    """
    if not path.is_file():
        raise SlidemillError(f"{path}: there is no prediction of this sample; run the workflow again")
    try:
        with zipfile.ZipFile(path):  # a store that cannot be opened cannot be closed
            pass
        with ZipStore(path, mode="r") as store:
            yield _complete_group(store)
    except zipfile.BadZipFile as error:
        raise SlidemillError(f"{path}: {error}; remove this damaged prediction and run the workflow again") from error


def head_of(group: zarr.Group, name: str) -> LazyArray | None:
    """Return one head of an open prediction, (rows, columns) uint8, 255 for 1; None if it is not kept."""
    names = group.attrs.get("heads", [])
    if name not in names:  # type: ignore[operator]
        return None
    heads: zarr.Array[Any] = group[_HEADS]  # type: ignore[assignment]
    number = names.index(name)  # type: ignore[union-attr]
    return LazyArray(heads.shape[1:], np.dtype(np.uint8), lambda *key: np.asarray(heads[(number, *key)]))


def _complete_group(store: ZipStore) -> zarr.Group:
    try:
        group = zarr.open_group(store, mode="r")
        group[_LABELS]
    except (KeyError, ValueError, FileNotFoundError) as error:
        raise zipfile.BadZipFile(f"has no labels ({error})") from error
    return group
