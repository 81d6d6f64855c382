"""Image formats, one reader each: a table says which reader opens a file, by its first bytes and not by its name.

Formats of several files are the exception: their suffix counts. A reader is a function
``(path, budget_bytes, stack) -> list[Series]``: it reads the header, refuses pieces that decode to more than the
budget, registers on ``stack`` what must be closed, and may raise anything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from pipeline.project.drop.image_files import is_dicom_folder, parts_of, why_not_inside
from pipeline.slides.formats.image import Series

Reader = Callable[[Path, int, ExitStack], list[Series]]

_BY_SUFFIX = {
    ".companion.ome": "pipeline.slides.formats.tiff:open_companion",
    **dict.fromkeys((".mrxs", ".svslide", ".vms", ".vmu"), "pipeline.slides.formats.whole_slide:open_whole_slide"),
}
_BY_MAGIC = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "pipeline.slides.formats.tiff:open_tiff"),
    b"\x89PNG\r\n\x1a\n": "pipeline.slides.formats.png_jpeg:open_png",
    b"\xff\xd8\xff": "pipeline.slides.formats.png_jpeg:open_jpeg",
    b"ZISRAWFILE": "pipeline.slides.formats.czi:open_czi",
    b"\xda\xce\xbe\x0a": "pipeline.slides.formats.nd2:open_nd2",
    b"\x00\x00\x00\x0cjP  ": "pipeline.slides.formats.nd2:open_nd2",  # ND2 before 2009
    b"\x70\0\0\0": "pipeline.slides.formats.lif:open_lif",
}
_FOLDER = "pipeline.slides.formats.ome_zarr:open_ome_zarr"
_DICOM_FOLDER = "pipeline.slides.formats.whole_slide:open_dicom"
_EXTRA = "microscopes"  # of pyproject.toml


def open_series(path: Path, budget_bytes: int, stack: ExitStack) -> list[Series]:
    """Return the images of a file, at least one; raises what the reader raises."""
    for part in parts_of(path):
        _check_inside(part, path)
    try:
        module, function = _reader_of(path).split(":")
        reader: Reader = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the package {error.name} that reads this format is not installed; pip install 'slidemill[{_EXTRA}]'"
        ) from error
    return reader(path, budget_bytes, stack)


def _check_inside(part: Path, slide: Path) -> None:
    """Refuse links and pipes among the files that belong to a slide, whose libraries would open them."""
    for place in (part, *(part.rglob("*") if part.is_dir() else ())):
        if (reason := why_not_inside(place, slide.parent)) and why_not_inside(place, slide.resolve().parent):
            raise ValueError(reason)


def _reader_of(path: Path) -> str:
    if path.is_dir():
        return _DICOM_FOLDER if is_dicom_folder(path) else _FOLDER
    for suffix, reader in _BY_SUFFIX.items():
        if path.name.lower().endswith(suffix):
            return reader
    with path.open("rb") as file:
        head = file.read(132)
    if not head:
        raise ValueError("the file is empty (0 bytes); copy it again")
    for magic, reader in _BY_MAGIC.items():
        if head.startswith(magic):
            return reader
    if head[128:] == b"DICM":
        raise ValueError("a DICOM slide has several files; put them into a folder of their own, and name that")
    raise ValueError("no image: its first bytes are those of no known format; check how it was saved or downloaded")
