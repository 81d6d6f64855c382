"""Slow but plain prediction: one forward pass over a whole slide, and one tile after the other; plans; measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.base.geometry import round_up
from pipeline.prediction.forward import crop_to, logits_of
from pipeline.prediction.measurements import Measurements
from pipeline.settings.schema import MIRROR_PX, ImageConfig
from pipeline.tiling.grid import Grid, surround_of
from pipeline.tiling.mirror_padding import read_mirrored
from pipeline.tiling.plan import SlidePlan

MEASURED = Measurements(
    pixels=3_000_000,
    wall_s=2.0,
    network_s=1.9,
    reading_s=0.0,
    writing_s=0.1,
    uncertain=0.25,
    tile_mismatch=None,
    differing_px=0,
    compared_px=0,
    probabilities=False,
    device="cpu",
    precision="float32",
    threads=2,
)


def plan_of(grid: Grid, **more: object) -> SlidePlan:
    """The plan of a slide without statistics and pixel size, unless ``more`` has them."""
    usual = {
        "slide": Path("a.tif"),
        "slide_sha256": "0",
        "view": ImageConfig(),
        "statistics": [],
        "pixel_size_um": None,
    }
    return SlidePlan(grid=grid, **usual | more)


@torch.inference_mode()
def logits_of_the_whole(network, image, mirror_px=MIRROR_PX):
    """One forward pass over the mirror-padded slide."""
    geometry = network.geometry
    surround = surround_of(geometry, mirror_px)
    rows, columns = (round_up(length, geometry.stride_px) for length in image.shape[1:])
    after = [(surround, surround + rows - image.shape[1]), (surround, surround + columns - image.shape[2])]
    padded = np.pad(image, [(0, 0), *after], mode="reflect")
    cut = (padded.shape[1] - geometry.remainder_px) % geometry.stride_px
    if cut:
        padded = padded[:, :-cut, :-cut]
    first = surround - geometry.margin_px
    logits = network(torch.from_numpy(padded)[None])[0].numpy()
    return logits[:, first : first + image.shape[1], first : first + image.shape[2]]


def logits_of_tiles(network, image, tile_px, mirror_px=MIRROR_PX):
    """The same from tiles."""
    shape = image.shape[1:]
    grid = Grid.plan(shape, geometry=network.geometry, tile_px=tile_px, mirror_px=mirror_px)
    logits = np.empty((3, *shape), dtype=image.dtype)
    for tile in grid.tiles():
        window = read_mirrored(lambda rows, columns: image[:, rows, columns], shape, tile.read)
        part = logits_of(network, torch.from_numpy(window)[None], tile.cut)
        logits[:, *tile.write.slices] = crop_to(part[0], tile).numpy()
    return logits


def assert_equal_but_for_ties(labels, whole):
    """Labels equal the argmax of the logits wherever the two largest differ by more than rounding."""
    first, second = np.sort(whole, axis=0)[::-1][:2]
    decided = first - second > 1e-5
    assert decided.mean() > 0.95
    np.testing.assert_array_equal(labels[decided], whole.argmax(axis=0)[decided])
