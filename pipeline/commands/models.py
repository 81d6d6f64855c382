"""Print a table of all architectures: size, operations, stride, context, tiling, paper."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from models import available
from pipeline.networks.model_sheet import Sheet, model_sheet

_HEAD = ("architecture", "parameters", "GFLOPs/Mpx", "stride_px", "context_px", "tiling", "paper")


def run() -> None:
    """Print the table for default options, one channel and two classes."""
    rows = [row(model_sheet(name)) for name in available()]
    print(pd.DataFrame(rows, columns=list(_HEAD)).to_string(index=False))


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
