"""Draw docs/images/demo.png from the results of `make demo`: a micrograph, and the outlines of mask and reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from skimage.segmentation import find_boundaries

ROOT = Path(__file__).parents[1]
PROJECT, PICTURE = ROOT / "projects" / "demo", ROOT / "docs" / "images" / "demo.png"
_ZOOM, _GAP_PX = 2, 12
_ORANGE, _BLUE = (255, 165, 0), (90, 180, 255)  # mask, reference


def main() -> None:
    """Write the picture."""
    slide = tifffile.imread(PROJECT / "data" / "slides" / "nuclei.tif").astype(np.float32)
    reference = tifffile.imread(PROJECT / "data" / "references" / "nuclei.tif")
    mask = tifffile.imread(PROJECT / "results" / "masks" / "unet" / "nuclei.ome.tiff", series=1)
    low, high = np.percentile(slide, (1, 99.8))
    grey = np.clip((slide - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    left = _enlarge(np.stack([grey] * 3, axis=-1))
    right = left.copy()
    for objects, colour in ((reference, _BLUE), (mask, _ORANGE)):
        right[find_boundaries(_enlarge(objects), mode="inner")] = colour
    gap = np.full((left.shape[0], _GAP_PX, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([left, gap, right], axis=1)).save(PICTURE, optimize=True)


def _enlarge(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)


if __name__ == "__main__":
    main()
