"""Stacks and time series go through the whole workflow plane by plane, from the file to the page."""

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.support.workflow import objects_in_noise

T, Z, SHAPE = 2, 3, (60, 80)


@pytest.fixture(scope="module")
def segmented(project):
    """A composite of ImageJ without time points, and a time series as OME-TIFF with a reference; of two channels."""
    slides, references = (project.folder / "data" / kind for kind in ("slides", "references"))
    for folder in (slides, references):
        folder.mkdir(parents=True)
    generator = np.random.default_rng(2)
    planes = [objects_in_noise(generator, SHAPE) for _ in range(T * Z)]
    pixels, labels = (np.stack(some).reshape(T, Z, *SHAPE) for some in zip(*planes, strict=True))
    composite = np.stack([np.zeros_like(pixels[0]), pixels[0]], axis=1)
    imagej = {"axes": "ZCYX", "mode": "composite", "unit": "um"}
    tifffile.imwrite(slides / "composite.tif", composite, imagej=True, metadata=imagej, resolution=(2, 2))
    series = np.stack([np.zeros_like(pixels), pixels], axis=2)
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(slides / "series.ome.tif", series, metadata={"axes": "TZCYX"} | size)
    tifffile.imwrite(references / "series.ome.tif", labels, metadata={"axes": "TZYX"})
    each = {"image": {"channels": [1], "z": "each", "t": "each"}, "training": {"kind": "classes"}}
    project.configure(**each)
    project.run()
    return project


def test_masks_are_stacks_whose_planes_are_alike(segmented):
    folder = segmented.folder / "results" / "masks" / "net"
    found = {}
    for name, axes, shape in (("composite", "ZYX", (Z, *SHAPE)), ("series", "TZYX", (T, Z, *SHAPE))):
        with tifffile.TiffFile(folder / f"{name}.ome.tiff") as mask:
            assert [(one.axes, one.shape) for one in mask.series] == [(axes, shape)] * 2
            assert 'PhysicalSizeX="0.5"' in mask.ome_metadata
            found[name] = mask.asarray()
    np.testing.assert_array_equal(found["composite"], found["series"][0])


def test_all_tables_have_planes(segmented):
    results = segmented.folder / "results"
    objects = pd.read_csv(results / "objects.csv")
    assert not objects.duplicated(["sample", "id"]).any()
    regions = pd.read_csv(results / "regions.csv")
    places = {"composite": {(0, z) for z in range(Z)}, "series": {(t, z) for t in range(T) for z in range(Z)}}
    for sample, expected in places.items():
        own = regions[regions["sample"] == sample]
        assert set(zip(own["t"], own["z"], strict=True)) == expected
        assert own["objects"].sum() == (objects["sample"] == sample).sum()
    meanings = pd.read_csv(results / "columns.csv")
    assert {"z", "t"} <= set(meanings.loc[meanings["table"] == "objects.csv", "column"])


def test_metrics_and_page_are_of_the_whole_stack(segmented):
    metrics = segmented.metrics()
    assert metrics["pixels"].tolist() == [Z * SHAPE[0] * SHAPE[1], T * Z * SHAPE[0] * SHAPE[1]]
    assert 0 <= metrics.loc["series", "foreground_dice"] <= 1
    page = (segmented.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert "t 1, z 0 (of 6 planes)" in page
    assert "t 0, z 1 (of 3 planes)" in page


def test_a_second_run_has_nothing_to_do_and_another_choice_is_made_again(segmented):
    assert segmented.planned() == {}
    segmented.configure(image={"channels": [1], "z": "each", "t": 0}, training={"kind": "classes"})
    assert {"tile", "predict", "stitch", "objects", "evaluate"} < set(segmented.planned())
