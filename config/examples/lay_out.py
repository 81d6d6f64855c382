"""Lay out an example as a project folder: ``python config/examples/lay_out.py demo projects/demo``.

The demo's micrographs come with the packages stardist and mahotas; those of the other examples are read from the
folder in ``SLIDEMILL_DATA`` (default ../shared/data). Nothing is written over a file that is there already.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imagecodecs
import tifffile
from numpy.typing import NDArray

CONFIGS = Path(__file__).parent
Copy = tuple[Path, str]


def lay_out(example: str, project: Path) -> None:
    """Write the configuration and the images of an example into ``project``, each file once."""
    _copy(CONFIGS / f"{example}.yaml", project / "config" / "config.yaml")
    _EXAMPLES[example](project)


def demo(project: Path) -> None:
    """Quadrants of one annotated micrograph, and a second one without annotation."""
    stardist = _folder_of("stardist") / "data" / "images"
    image, labels = (tifffile.imread(stardist / name) for name in ("img2d.tif", "mask2d.tif"))
    for name in ("upper_left", "upper_right", "lower_left", "lower_right"):
        rows, columns = (slice(0, 256) if side in name else slice(256, 512) for side in ("upper", "left"))
        for folders, pixels in ((("training/images", "slides"), image), (("training/labels", "references"), labels)):
            place = f"{folders[1]}/nuclei.tif" if name == "lower_right" else f"{folders[0]}/{name}.tif"
            _write_tiff(project / "data" / place, pixels[rows, columns])
    nuclear = imagecodecs.png_decode((_folder_of("mahotas") / "demos" / "data" / "nuclear.png").read_bytes())
    _write_tiff(project / "data" / "slides" / "nuclear.tif", nuclear[..., 0])  # a grey picture saved as RGB


def isbi2012(project: Path) -> None:
    """Neighbouring slices resemble each other, so the two sides are blocks of the stack."""
    for number in range(24):
        for kind, folders in (
            ("images", ("training/images", "slides/stack")),
            ("masks", ("training/labels", "references/stack")),
        ):
            place = Path(folders[number >= 20]) / f"{number:02d}.tif"
            _copy(_data() / "isbi2012" / kind / place.name, project / "data" / place)


def dsb2018(project: Path) -> None:
    """Fluorescence images, split by field of view, which the sample sheet names as their groups."""
    source, sheet = _data() / "dsb2018", ["sample,group"]
    for row in _rows(source / "index.csv"):
        if row["modality"] != "fluorescence":
            continue
        group, name = int(row["fov_group"]), f"{row['id'][:12]}.tif"
        training, folder = group % 5 != 0, f"field_{group:03d}"
        for kind, held_back in (("images", "slides/fields"), ("labels", "references/fields")):
            place = f"training/{kind}/{folder}" if training else held_back
            _copy(source / kind / f"{row['id']}.tif", project / "data" / place / name)
        if not training:
            sheet.append(f"fields/{name.removesuffix('.tif')},{folder}")
    (project / "config").mkdir(parents=True, exist_ok=True)
    (project / "config" / "samples.csv").write_text("\n".join([*sheet, ""]), encoding="utf-8")


def phase_contrast(project: Path) -> None:
    """Quarters of two micrographs, so that one is held back, and a third one whole."""
    source = _data() / "phase_contrast"
    for row in _rows(source / "index.csv"):
        for kind, whole in (("images", "slides"), ("labels", "references")):
            place = source / kind / f"{row['id']}.tif"
            if row["original_split"] == "val":
                _copy(place, project / "data" / whole / place.name)
                continue
            pixels = tifffile.imread(place)
            for number in range(4):
                top, left = (512 * (number // 2), 512 * (number % 2))
                target = project / "data" / "training" / kind / f"{row['id']}_{number}.tif"
                _write_tiff(target, pixels[top : top + 512, left : left + 512])


def wbc(project: Path) -> None:
    """Images of two microscopes, one of five of each evaluated."""
    source = _data() / "wbc"
    for number, row in enumerate(_rows(source / "index.csv")):
        for kind, folders in (
            ("images", ("training/images", "slides/smears")),
            ("masks", ("training/labels", "references/smears")),
        ):
            place = source / kind / f"{row['id']}.tif"
            _copy(place, project / "data" / folders[number % 5 == 0] / place.name)


_EXAMPLES = {
    "demo": demo,
    "isbi2012": isbi2012,
    "compare": isbi2012,
    "dsb2018": dsb2018,
    "phase_contrast": phase_contrast,
    "wbc": wbc,
}


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"error: the demo reads a micrograph of the package {package}; pip install -e '.[demo]'")
    return Path(spec.origin).parent


def _data() -> Path:
    folder = Path(os.environ.get("SLIDEMILL_DATA", "../shared/data"))
    if not folder.is_dir():
        sys.exit(f"error: {folder} is not a folder; set SLIDEMILL_DATA to where the data sets are")
    return folder


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _write_tiff(path: Path, pixels: NDArray[Any]) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, pixels, compression="zlib")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in _EXAMPLES:
        sys.exit(f"usage: lay_out.py {{{','.join(_EXAMPLES)}}} FOLDER")
    lay_out(sys.argv[1], Path(sys.argv[2]))
