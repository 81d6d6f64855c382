"""Review pages of invented samples, for the tests of the page and of the browser."""

from __future__ import annotations

from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import scipy.ndimage
import tifffile

from pipeline.report.page.page_types import Column, Entry, Figure, Layers, Page, Table
from pipeline.report.pictures import picture_shape, pictures_of_errors, pictures_of_mask
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.slide import Slide, open_slide

Shape = tuple[int, int]

SCRIPT, FORMULA, BREAKOUT = "<script>alert(1)</script>", "=cmd()", "</script><img src=x onerror=alert(2)>"
SAMPLES, DISTINCT, FAILED = 500, 25, [SCRIPT, FORMULA, BREAKOUT]  # of the page in a browser
LARGEST_BYTES = 20e6
CLASSES = ["background", "nucleus", "membrane"]
COLUMNS = [
    Column(name="sample", about="Path of the slide below the drop folder."),
    Column(name="model", about="Name of the model."),
    Column(name="flags", about="Warnings about the quality of the slide."),
    Column(name="foreground_dice", about="Mean Dice of the foreground.", digits=3),
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
    content = {"project": "demo", "date": "2026-11-29 09:30", "held_back": []}
    content |= {"columns": COLUMNS, "classes": CLASSES, "tables": [table], "figures": [FIGURE]}
    origin = {"version": "0.1.0", "settings": {"classes": CLASSES}, "versions": {"numpy": "2"}}
    return Page(**content | {"entries": entries, "provenance": origin} | parts)


def invented_pictures(folder: Path, generator: np.random.Generator, *, side_px: int) -> tuple[dict[str, bytes], Shape]:
    """Pictures and their shape: a noisy slide of blobs, and a mask that is wrong at some borders."""
    field = scipy.ndimage.gaussian_filter(generator.normal(size=(side_px, side_px)), side_px / 60)
    field /= field.std()
    truth = np.digitize(field, [0.5, 1.4]).astype(np.uint8)
    shifted = field + 0.35 * scipy.ndimage.gaussian_filter(generator.normal(size=field.shape), 4) * 10
    mask = np.digitize(shifted, [0.5, 1.4]).astype(np.uint8)
    image = (60 + 60 * truth + 25 * generator.normal(size=field.shape)).clip(0, 255).astype(np.uint8)
    return pictures_of(folder, image, mask, truth), picture_shape(image.shape)


def pictures_of(
    folder: Path, image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None = None, classes: list[str] = CLASSES
) -> dict[str, bytes]:
    """All pictures of arrays; they go through files, as in a run."""
    photometric = "rgb" if image.ndim == 3 and image.shape[2] == 3 else "minisblack"
    tifffile.imwrite(folder / "image.tif", image, photometric=photometric)
    labels = LabelConfig(classes=classes, kind="classes")
    with ExitStack() as stack:

        def opened(name: str, pixels: np.ndarray) -> Slide:
            tifffile.imwrite(folder / name, pixels)
            return stack.enter_context(open_slide(folder / name, memory_mb=100))

        slide = stack.enter_context(open_slide(folder / "image.tif", memory_mb=100))
        predicted = opened("mask.tif", mask)
        drawn = pictures_of_mask(slide, predicted, scipy.ndimage.label(mask)[0], num_classes=len(classes))
        return drawn | ({} if truth is None else pictures_of_errors(opened("truth.tif", truth), predicted, labels))


def embedded(pictures: dict[str, bytes], shape: Shape) -> Layers:
    """Pictures in a page."""
    kinds = {"image": "webp"}
    urls = {
        name: f"data:image/{kinds.get(name, 'png')};base64,{b64encode(content).decode()}"
        for name, content in pictures.items()
    }
    return Layers(urls=urls, shape=shape)
