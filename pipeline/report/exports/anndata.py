"""The objects of several samples for scanpy and squidpy: an AnnData file (.h5ad), written a piece at a time.

The file follows the specification of AnnData 0.1.0, which anndata reads since version 0.8:
https://anndata.readthedocs.io/en/stable/fileformat-prose.html. It is written with h5py, since anndata itself holds all
objects in memory. The same in a group of Zarr is the table of a spatialdata store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from pipeline import __version__
from pipeline.base.files import replacing, spreadsheet_text
from pipeline.masks.measurements.dictionary import entry_of
from pipeline.report.exports.selection import Selection, needed
from pipeline.report.exports.tables import columns_in, gathered, kind_of

_TOGETHER = 2**16  # objects
_PLACE = ["centroid_column_px", "centroid_row_px"]  # x, y
REGION = "region"  # the column that names the label image of an object, in spatialdata
_VERSIONS = {"anndata": "0.1.0", "dict": "0.1.0"}  # of encodings; all others are 0.2.0


def write_anndata(output: Path, chosen: Selection) -> None:
    """Write an observation per object.

    ``X`` (float64) has what are measurements in QuPath too; ``obs`` all other columns, text as categories;
    ``obsm["spatial"]`` the centroid (x, y) in px of the mask, ``obsm["spatial_um"]`` in µm; ``var`` unit, meaning and
    name in QuPath of each measurement. The names of observations are ``SAMPLE/ID``.
    """
    h5py = needed("h5py", "anndata")
    with replacing(output) as temporary, h5py.File(temporary, "w") as file:
        write_observations(file, gathered(temporary, chosen), chosen)


def write_observations(
    root: Any,
    table: Path,
    chosen: Selection,
    *,
    regions: Mapping[str, str] | None = None,
    uns: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a table of objects into an HDF5 file or a Zarr group.

    Parameters
    ----------
    root : h5py.File or zarr.Group
        It is empty.
    table : Path
        CSV file of the objects of the samples in ``chosen``.
    regions : mapping, optional
        By sample, as in the table, what the column ``region`` of ``obs`` says.
    uns : mapping, optional
        With ``regions``: the texts of ``uns["spatialdata_attrs"]``, which also has ``region``, those that have objects.

    Returns
    -------
    list of str
        The regions that have objects.
    """
    sizes_um = {spreadsheet_text(one.sample): one.found["objects"]["pixel_size_um"] for one in chosen.outcomes}
    names = columns_in(table)
    texts = [name for name in names if kind_of(name) == "text"]
    measured = [name for name in names if (entry := entry_of(name)) and entry.title]
    count = sum(one.found["objects"]["objects"] for one in chosen.outcomes)
    of_regions = [] if regions is None else [REGION]
    writer = _Observations(_encode(root, "anndata"), count, [*names, *of_regions], measured, [*texts, *of_regions])
    for piece in pd.read_csv(
        table,
        dtype=dict.fromkeys(texts, str),
        keep_default_na=False,  # a class may be named NA
        na_values={name: [""] for name in names if name not in texts},
        chunksize=_TOGETHER,
    ):
        writer.add(piece if regions is None else piece.assign(region=piece["sample"].map(regions)), sizes_um)
    writer.end()
    _write_variables(root, measured)
    about = _group(root, "uns")
    _text(about, "slidemill", f"objects found by {chosen.outcomes[0].model}, Slidemill {__version__}")
    with_objects = list(writer.categories.get(REGION, ()))
    if regions is not None:
        keys = _group(about, "spatialdata_attrs")
        _strings(keys, "region", with_objects)
        for name, text in (uns or {}).items():
            _text(keys, name, text)
    for name in ("layers", "obsp", "varm", "varp"):
        _group(root, name)
    return with_objects


class _Observations:
    """The arrays ``X``, ``obs`` and ``obsm`` of a file, filled from the top."""

    def __init__(
        self, file: Any, count: int, names: Sequence[str], measured: Sequence[str], texts: Sequence[str]
    ) -> None:
        others = [name for name in names if name not in {*measured, *_PLACE}]
        self.measured = list(measured)
        self.obs = _group(file, "obs", "dataframe")
        self.obs.attrs["_index"], self.obs.attrs["column-order"] = "_index", others
        self.values = _array(file, "X", (count, len(self.measured)), "f8")
        places = _group(file, "obsm")
        self.places = [_array(places, name, (count, 2), "f8") for name in ("spatial", "spatial_um")]
        self.names = _strings(self.obs, "_index", count)
        self.codes: dict[str, Any] = {}
        self.categories: dict[str, dict[str, int]] = {}
        self.numbers: dict[str, Any] = {}
        for name in others:
            if name in texts:
                held = _group(self.obs, name, "categorical")
                held.attrs["ordered"] = False
                self.codes[name], self.categories[name] = _array(held, "codes", (count,), "i4"), {}
            else:
                kind = "i8" if kind_of(name) == "whole" else "f8"
                self.numbers[name] = _array(self.obs, name, (count,), kind)
        self.done = 0

    def add(self, piece: pd.DataFrame, sizes_um: dict[str, Sequence[float] | None]) -> None:
        """Write the next rows of the table."""
        here = slice(self.done, self.done + len(piece))
        self.values[here] = piece[self.measured].to_numpy(np.float64)
        sizes = np.array([sizes_um[sample] or (math.nan, math.nan) for sample in piece["sample"]]).reshape(-1, 2)
        place = piece[_PLACE].to_numpy(np.float64)
        self.places[0][here], self.places[1][here] = place, place * sizes[:, ::-1]
        names = [f"{sample}/{number}" for sample, number in zip(piece["sample"], piece["id"], strict=True)]
        self.names[here] = np.array(names, dtype=object)
        for name, codes in self.codes.items():
            known = self.categories[name]
            codes[here] = [known.setdefault(text, len(known)) for text in piece[name].tolist()]
        for name, numbers in self.numbers.items():
            numbers[here] = piece[name].to_numpy(numbers.dtype)
        self.done = here.stop

    def end(self) -> None:
        """Write the names of categories, which are known now."""
        for name, known in self.categories.items():
            _strings(self.obs[name], "categories", list(known))


def _write_variables(file: Any, measured: Sequence[str]) -> None:
    """Write ``var``: what each measurement is."""
    variables = _group(file, "var", "dataframe")
    entries: list[Any] = [entry_of(name) for name in measured]
    columns = {"unit": "unit", "meaning": "about", "qupath": "title"}
    variables.attrs["_index"], variables.attrs["column-order"] = "_index", list(columns)
    _strings(variables, "_index", list(measured))
    for name, attribute in columns.items():
        _strings(variables, name, [getattr(entry, attribute) if entry else "" for entry in entries])


def _encode(node: Any, kind: str) -> Any:
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, _VERSIONS.get(kind, "0.2.0")
    return node


def _group(parent: Any, name: str, kind: str = "dict") -> Any:
    return _encode(parent.create_group(name), kind)


def _array(parent: Any, name: str, shape: tuple[int, ...], dtype: str) -> Any:
    chunks = (min(shape[0], _TOGETHER), *shape[1:]) if min(shape) else None
    if isinstance(parent, zarr.Group):
        return _encode(parent.create_array(name, shape=shape, dtype=dtype, chunks=chunks or "auto"), "array")
    packed = {"compression": "gzip", "shuffle": True, "chunks": chunks} if chunks else {}
    return _encode(parent.create_dataset(name, shape, dtype, **packed), "array")


def _strings(parent: Any, name: str, texts: Sequence[str] | int) -> Any:
    """Write an array of texts, or make one of so many that are written later."""
    shape = (texts,) if isinstance(texts, int) else (len(texts),)
    held = _encode(_texts(parent, name, shape), "string-array")
    if not isinstance(texts, int) and texts:
        held[:] = np.array(texts, dtype=object)
    return held


def _text(parent: Any, name: str, text: str) -> None:
    _encode(_texts(parent, name, ()), "string")[()] = text


def _texts(parent: Any, name: str, shape: tuple[int, ...]) -> Any:
    if isinstance(parent, zarr.Group):
        return parent.create_array(name, shape=shape, dtype="string", chunks=tuple(map(_chunk, shape)))
    return parent.create_dataset(name, shape, needed("h5py", "anndata").string_dtype())


def _chunk(count: int) -> int:
    return max(1, min(count, _TOGETHER))
