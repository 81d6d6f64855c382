"""Object ids inside of OME-Zarr slides: pixels, places and the list are right, and the slide stays what it was."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.base.files import sha256, state_of
from pipeline.masks.ome_tiff import write_label_images
from pipeline.project.drop.drop_folder import Sample, write_samples
from pipeline.report.exports import slide_labels
from pipeline.report.exports.selection import Selection
from pipeline.report.outcome import Outcome
from pipeline.settings.schema import parse_settings
from pipeline.slides.slide import open_slide

pytestmark = pytest.mark.usefixtures("in_folder", "ids")
SHAPE, LEVELS = (70, 90), 3
SLIDE = Path("data/slides/a.ome.zarr")


def write_slide(version, axes="cyx", pixel_um=0.5):
    """Write an OME-Zarr image of ``LEVELS`` levels in version 0.4 or 0.5, with a translation."""
    lengths = {"t": 1, "c": 2, "z": 1, "y": SHAPE[0], "x": SHAPE[1]}
    place = [{"type": "translation", "translation": [10.0 if axis in "yx" else 0.0 for axis in axes]}]

    def scale(step):
        return [{"type": "scale", "scale": [step * pixel_um if axis in "yx" else 1.0 for axis in axes]}]

    datasets = [{"path": f"{n}", "coordinateTransformations": scale(2**n) + place} for n in range(LEVELS)]
    units = {"y": {"unit": "micrometer"}, "x": {"unit": "micrometer"}}
    kinds = {"c": "channel", "t": "time"}
    described = [{"name": axis, "type": kinds.get(axis, "space"), **units.get(axis, {})} for axis in axes]
    image = {"axes": described, "datasets": datasets, "version": version}
    about = {"multiscales": [image]} if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}
    group = zarr.create_group(SLIDE, zarr_format=2 if version == "0.4" else 3, attributes=about)
    for number in range(LEVELS):
        shape = [-(-lengths[axis] // 2**number) if axis in "yx" else lengths[axis] for axis in axes]
        group.create_array(f"{number}", data=np.full(shape, 7, np.uint8))


@pytest.fixture
def ids(generator):
    """The object ids of the mask of a slide that is not written yet."""
    blocks = np.kron(generator.integers(0, 9, (7, 9)), np.ones((10, 10), int)).astype(np.uint32)
    mask = Path(paths.MASK.format(model="net", sample="a"))
    mask.parent.mkdir(parents=True)
    about = {"sample": "a", "classes": "background, object", "stage": "stitch", "config": {}, "sha256": {}}
    images = {"classes": (blocks > 0).astype(np.uint8), "instances": blocks}
    write_label_images(mask, images, pixel_size_um=(0.5, 0.5), annotations=about)
    write_samples({"a": Sample(slide=str(SLIDE), version="1", batch="1")}, "snakemake", "")
    return blocks


def export(name="nuclei", slide=SLIDE, **image):
    outcome = Outcome(sample="a", model="net", slide=str(slide), mask=paths.MASK.format(model="net", sample="a"))
    settings = parse_settings({"image": image}, source="")
    slide_labels.write_slide_labels(Path(name), Selection(outcomes=[outcome], settings=settings, groups={}))


def attributes_of(folder, version):
    if version == "0.4":
        return json.loads((folder / ".zattrs").read_text())
    return json.loads((folder / "zarr.json").read_text())["attributes"]["ome"]


@pytest.mark.parametrize(("version", "axes"), [("0.4", "cyx"), ("0.5", "cyx"), ("0.4", "tczyx"), ("0.5", "yx")])
def test_labels_lie_where_the_image_lies_in_its_version_and_the_slide_did_not_change(ids, version, axes):
    write_slide(version, axes)
    before = state_of(SLIDE), sha256(SLIDE), sorted(SLIDE.iterdir())
    export()
    assert (state_of(SLIDE), sha256(SLIDE)) == before[:2]
    assert sorted(SLIDE.iterdir()) == sorted([*before[2], SLIDE / "labels"])
    assert attributes_of(SLIDE / "labels", version)["labels"] == ["nuclei"]
    assert not list(SLIDE.rglob(".partial*"))
    about = attributes_of(SLIDE / "labels" / "nuclei", version)
    assert about["image-label"]["source"] == {"image": "../../"}
    assert (about if version == "0.5" else about["image-label"])["version"] == version
    (multiscale,) = about["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["y", "x"]
    assert len(multiscale["datasets"]) == LEVELS  # as many as the image has
    group = zarr.open_group(SLIDE / "labels" / "nuclei", mode="r")
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    for number, level in enumerate(multiscale["datasets"]):
        np.testing.assert_array_equal(group[level["path"]][:], ids[:: 2**number, :: 2**number])
        scale, translation = level["coordinateTransformations"]
        assert scale["scale"] == [0.5 * 2**number] * 2
        assert translation["translation"] == [10, 10]
    with open_slide(SLIDE / "labels" / "nuclei", memory_mb=100) as labels:
        np.testing.assert_array_equal(labels.read_all()[0], ids)
        assert labels.pixel_size_um == (0.5, 0.5)


def test_labels_of_other_names_stay_and_one_of_the_same_name_is_refused():
    write_slide("0.5")
    theirs = zarr.create_group(
        SLIDE / "labels", attributes={"mine": 1, "ome": {"version": "0.5", "labels": ["theirs"]}}
    )
    theirs.create_array("theirs", data=np.arange(4))
    export()
    about = json.loads((SLIDE / "labels" / "zarr.json").read_text())["attributes"]
    assert about == {"mine": 1, "ome": {"version": "0.5", "labels": ["theirs", "nuclei"]}}
    np.testing.assert_array_equal(zarr.open_array(SLIDE / "labels" / "theirs", mode="r")[:], np.arange(4))
    for name in ("theirs", "nuclei"):
        before = sha256(SLIDE / "labels")
        with pytest.raises(
            SlidemillError, match=f"labels/{name}: already exists; remove it or choose another --output"
        ):
            export(name)
        assert sha256(SLIDE / "labels") == before


def test_a_failure_leaves_the_slide_as_it_was(monkeypatch):
    write_slide("0.5")
    before = sorted(SLIDE.rglob("*"))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(slide_labels, "copy_level", fail)
    with contextlib.suppress(Exception):
        export()
    assert [path for path in sorted(SLIDE.rglob("*")) if path.name != "labels"] == before


def test_a_mask_of_wider_pixels_lies_on_their_middle():
    """Its pixels are 2 x 2 of the image: the middle of the first lies half a pixel of the image further."""
    write_slide("0.5", pixel_um=0.25)
    export(pixel_size_um=0.5)
    (multiscale,) = attributes_of(SLIDE / "labels" / "nuclei", "0.5")["multiscales"]
    scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], translation["translation"]) == ([0.5, 0.5], [10.125, 10.125])


@pytest.mark.parametrize(
    ("name", "slide", "reason"),
    [
        ("a/b", SLIDE, "--output a/b: with --to slide-labels the name of the label image"),
        ("..", SLIDE, "--output ..: with"),
        (
            "x",
            Path("data/slides/b.tif"),
            "--to slide-labels: data/slides/b.tif is not one OME-Zarr image; use --to ome-z",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(name, slide, reason):
    write_slide("0.5")
    with pytest.raises(SlidemillError, match=reason):
        export(name, slide)
    assert not (SLIDE / "labels").exists()
