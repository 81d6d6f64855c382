"""Review pages of invented samples, for the tests of the page and of the browser."""

from __future__ import annotations

from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import scipy.ndimage
import tifffile
from skimage.measure import regionprops_table

from pipeline.report.histograms import histograms_of_sample
from pipeline.report.page.page_types import Column, Entry, Figure, Layers, Page, Table
from pipeline.report.pictures import picture_shape, pictures_of_errors, pictures_of_mask
from pipeline.settings.stage_sections import LabelConfig
from pipeline.slides.slide import Slide, open_slide

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


def invented_pictures(
    folder: Path, generator: np.random.Generator, *, side_px: int
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Pictures, and what else the layers of a sample have: a noisy slide of blobs, a mask wrong at some borders."""
    field = scipy.ndimage.gaussian_filter(generator.normal(size=(side_px, side_px)), side_px / 60)
    field /= field.std()
    truth = np.digitize(field, [0.5, 1.4]).astype(np.uint8)
    shifted = field + 0.35 * scipy.ndimage.gaussian_filter(generator.normal(size=field.shape), 4) * 10
    mask = np.digitize(shifted, [0.5, 1.4]).astype(np.uint8)
    image = (60 + 60 * truth + 25 * generator.normal(size=field.shape)).clip(0, 255).astype(np.uint8)
    found, marks = histograms_of_sample(columns_of(mask, image), mask.shape)
    return pictures_of(folder, image, mask, truth) | {"marks": marks}, found | {"shape": picture_shape(image.shape)}


def columns_of(mask: np.ndarray, image: np.ndarray) -> dict[str, np.ndarray]:
    """Some columns of the table of objects, by scikit-image."""
    names = {"area_px": "area", "eccentricity": "eccentricity", "mean_intensity_0": "intensity_mean"}
    names |= {"centroid_row_px": "centroid-0", "centroid_column_px": "centroid-1", "solidity": "solidity"}
    wanted = ("area", "eccentricity", "intensity_mean", "centroid", "solidity")
    table = regionprops_table(scipy.ndimage.label(mask)[0], image, properties=wanted)
    return {name: table[own] for name, own in names.items()}


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


def embedded(pictures: dict[str, bytes], found: dict[str, Any]) -> Layers:
    """Pictures in a page."""
    kinds = {"image": "webp"}
    urls = {
        name: f"data:image/{kinds.get(name, 'png')};base64,{b64encode(content).decode()}"
        for name, content in pictures.items()
    }
    return Layers(urls=urls, **found)


def linked(folder: Path, name: str, pictures: dict[str, bytes], found: dict[str, Any]) -> Layers:
    """Pictures in files beside a page."""
    for layer, content in pictures.items():
        path = folder / f"{name}.{layer}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Layers(urls={layer: quote(f"{name}.{layer}") for layer in pictures}, **found)
