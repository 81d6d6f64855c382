"""Review pages of invented samples, for the tests of the page and of the browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.ndimage
import tifffile

from pipeline.report.page.page_types import Column, Entry, Figure, Layers, Page, Table
from pipeline.report.pictures import layers_of, picture_shape
from pipeline.slides.slide import open_slide

SCRIPT, FORMULA, BREAKOUT = "<script>alert(1)</script>", "=cmd()", "</script><img src=x onerror=alert(2)>"
CLASSES = ["background", "nucleus", "membrane"]
COLUMNS = [
    Column(name="sample", about="Path of the slide below the drop folder."),
    Column(name="model", about="Name of the model."),
    Column(name="flags", about="Warnings about the quality of the slide."),
    Column(name="dice_mean", about="Mean Dice over classes.", digits=3),
    Column(name="dice_nucleus", about="Dice of class nucleus.", digits=3),
    Column(name="pixels", about="Pixels of the slide.", digits=0, leading=False),
    Column(name="status", leading=False),
    Column(name="error", leading=False),
]
FIGURE = Figure(
    title="Learning curves",
    caption="Loss & Dice.",
    svg='<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="9" height="9"/></svg>',
)


def entry(sample: str, *, layers: Layers | None = None, **cells) -> Entry:
    """One row: a sample without problems, changed by ``cells``."""
    row = dict.fromkeys((column.name for column in COLUMNS), None)
    row |= {"sample": sample, "model": "unet", "status": "done", "stage": "", "error": "", "flags": "", "pixels": 4096}
    links = {"mask": f"masks/{len(sample)}.ome.tiff", "log": f"../logs/{len(sample)}.log"}
    return Entry(row=row | cells, links=links, layers=layers)


def page(entries: list[Entry], **parts) -> Page:
    """A page of ``entries`` with one small table and figure."""
    table = Table(title="Models", caption="One row per model.", columns=COLUMNS[1:4], rows=[{"model": "unet"}])
    content = {"columns": COLUMNS, "classes": CLASSES, "tables": [table], "figures": [FIGURE]}
    origin = {"version": "0.1.0", "settings": {"classes": CLASSES}, "versions": {"numpy": "2"}}
    return Page(**content | {"entries": entries, "provenance": origin} | parts)


def invented_layers(folder: Path, generator: np.random.Generator, *, side_px: int, picture_px: int) -> Layers:
    """Pictures of a noisy slide of blobs, and of a mask that is wrong at some borders."""
    field = scipy.ndimage.gaussian_filter(generator.normal(size=(side_px, side_px)), side_px / 60)
    field /= field.std()
    truth = np.digitize(field, [0.5, 1.4]).astype(np.uint8)
    shifted = field + 0.35 * scipy.ndimage.gaussian_filter(generator.normal(size=field.shape), 4) * 10
    mask = np.digitize(shifted, [0.5, 1.4]).astype(np.uint8)
    image = (60 + 60 * truth + 25 * generator.normal(size=field.shape)).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(folder / "image.tif", image)
    tifffile.imwrite(folder / "mask.tif", mask)
    shape = picture_shape(image.shape, picture_px)
    pick = [((np.arange(count) + 0.5) * side_px / count).astype(int) for count in shape]
    with (
        open_slide(folder / "image.tif", memory_mb=100) as slide,
        open_slide(folder / "mask.tif", memory_mb=100) as labels,
    ):
        return layers_of(slide, labels, truth[np.ix_(*pick)], side_px=picture_px, num_classes=len(CLASSES))
