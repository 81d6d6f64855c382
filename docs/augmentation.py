"""Draw docs/images/augmentation.png: what each augmentation does to a real image, with its labels. `make docs` runs it.

The micrographs come with the package stardist (extra `demo`): nuclei in fluorescence with their labels, and a section
in haematoxylin and eosin.
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import numpy as np
import tifffile
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

from pipeline.settings.networks import AugmentationConfig, ChangeName
from pipeline.slides.intensity import measure_intensities, normalize
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.patches import RandomPatches

PICTURE = Path(__file__).parent / "images" / "augmentation.png"
_PATCH_PX = 160
_COLUMNS = 6
_COLOURS = 64  # in the file, to keep it small

# The default size of a change, or a value worth trying if it is off by default.
_ON_NUCLEI: dict[ChangeName, float | bool] = {
    "flip": True,
    "rotate_deg": 20.0,
    "shift_px": 16.0,
    "scale": 0.15,
    "crop": 0.4,
    "elastic_px": 3.0,
    "contrast": 0.75,
    "brightness": 0.1,
    "gamma": 0.5,
    "blur_px": 0.8,
    "noise": 0.03,
    "erase": 0.3,
}
_ON_SECTION: dict[ChangeName, float | bool] = {"stain": 0.05, "channel_shuffle": True}
_NOTHING = dict.fromkeys([*_ON_NUCLEI, *_ON_SECTION], 0.0) | {"flip": False, "channel_shuffle": False}


def main() -> None:
    """Write the picture."""
    mpl.use("agg")
    images = _images()
    labels, pixels = tifffile.imread(images / "mask2d.tif"), np.asarray(Image.open(images / "histo.jpg"))[..., :3]
    nuclei = _annotated(tifffile.imread(images / "img2d.tif")[None], (labels > 0).astype(np.uint8))
    section = _annotated(np.moveaxis(pixels, -1, 0), np.zeros(pixels.shape[:2], dtype=np.uint8))
    panels = [("as it is", _patch(nuclei, {}))]
    panels += [(f"{name}: {size}".lower(), _patch(nuclei, {name: size})) for name, size in _ON_NUCLEI.items()]
    panels += [("section as it is", _patch(section, {}))]
    panels += [(f"{name}: {size}".lower(), _patch(section, {name: size})) for name, size in _ON_SECTION.items()]
    panels += [("default", _patch(nuclei, None)), ("default", _patch(nuclei, None, number=1))]
    mpl.rcParams["font.size"] = 8
    rows = -(-len(panels) // _COLUMNS)
    figure, axes = plt.subplots(rows, _COLUMNS, figsize=(1.7 * _COLUMNS, 1.9 * rows), layout="constrained", dpi=100)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (title, picture) in zip(axes.flat, panels, strict=False):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(title)
    PICTURE.parent.mkdir(exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


def _patch(slide: Annotated, changes: dict[ChangeName, float | bool] | None, number: int = 0) -> NDArray[np.float32]:
    """Return a patch from a fixed place in colours, with the outlines of its labels; ``changes`` None: the defaults."""
    config = AugmentationConfig()
    if changes is not None:
        always = dict.fromkeys(changes, 1.0)
        config = config.model_copy(update=_NOTHING | changes | {"probability": always})
    seed = 4 if changes is None else 7
    image, target, _ = RandomPatches([slide], patch_px=_PATCH_PX, config=config, seed=seed)[number]
    picture = np.moveaxis(np.broadcast_to(image.numpy(), (3, *image.shape[1:])), 0, -1).clip(0, 1).copy()
    picture[find_boundaries(target.numpy(), mode="inner")] = 1.0, 0.75, 0.0
    return picture


def _annotated(pixels: NDArray[np.uint8] | NDArray[np.uint16], classes: NDArray[np.uint8]) -> Annotated:
    statistics = measure_intensities(pixels)
    return Annotated(
        name="",
        image=normalize(pixels, statistics),
        classes=classes,
        maps=np.ones((1, *classes.shape), np.float16),
        statistics=tuple(statistics),
        white=float(np.iinfo(pixels.dtype).max),
    )


def _images() -> Path:
    stardist = find_spec("stardist")
    if stardist is None or stardist.origin is None:
        raise SystemExit("the picture needs the package stardist: pip install '.[demo]'")
    return Path(stardist.origin).parent / "data" / "images"


if __name__ == "__main__":
    main()
