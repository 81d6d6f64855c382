"""Print the model sheet: every architecture with what it costs and what tiling does to it."""

from __future__ import annotations

from collections.abc import Iterator

from models import available
from models.sheet import Sheet, model_sheet

_HEAD = ("architecture", "parameters", "GFLOPs/Mpx", "stride_px", "context_px", "tiling", "paper")


def run() -> None:
    """Print a table of all architectures, with default options, for one channel and two classes."""
    rows = [_HEAD, *(row(model_sheet(name)) for name in available())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def row(sheet: Sheet) -> tuple[str, ...]:
    """Return the cells of one architecture."""
    context_px = sheet.geometry.context_px
    return (
        sheet.name,
        f"{sheet.parameters:,}",
        f"{sheet.gflops_per_mpx:,.1f}",
        str(sheet.geometry.stride_px),
        "all" if context_px is None else str(context_px),
        sheet.tiling,
        sheet.paper,
    )


def markdown() -> Iterator[str]:
    """Yield the lines of the table in Markdown, with the options and their defaults."""
    yield "| " + " | ".join((*_HEAD, "options")) + " |"
    yield "|---|--:|--:|--:|--:|---|---|---|"
    for name in available():
        sheet = model_sheet(name)
        options = ", ".join(f"`{key}: {_yaml(value)}`" for key, value in sheet.options.items())
        yield "| " + " | ".join((f"`{name}`", *row(sheet)[1:], options)) + " |"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
