"""Slides with regions, from files to files: inside, masks and sums are those of the whole slide; outside is nothing."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from shapely.geometry import Polygon, box

from pipeline.base import paths
from pipeline.base.files import state_of
from tests.support.jobs import Jobs
from tests.support.networks import write_network
from tests.support.outlines import centres_in, write_outlines

SHAPE = (230, 310)
RING = Polygon(box(150, 20, 290, 110).exterior, [box(190, 40, 240, 80).exterior])
AREAS = {"ring": RING, "corner": box(0, 150, 60, 230), "overlap": box(40, 180, 100, 205)}
INSIDE = np.any([centres_in(area, SHAPE) for area in AREAS.values()], axis=0)
FAR = {"far": box(0, 0, 5000, 5000)}


def put(jobs, name, slide, areas=None, **row):
    if areas is not None:
        path = write_outlines(Path("data/regions") / f"{name}.geojson", areas)
        row |= {"regions": str(path), "regions_version": state_of(path)}
    jobs.put(name, slide, **row)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One batch of the same slide without regions, with them, cut to them, and with some of another slide."""
    folder = tmp_path_factory.mktemp("regions")
    generator = np.random.default_rng(0)
    with contextlib.chdir(folder):
        weights = write_network(folder / "network", width=4, depth=2)
        kind = {"kind": "classes", "ignored": 255}
        jobs = Jobs(weights, memory_mb=1000, threads=1, tiling={"tile_px": 48}, training=kind)
        pixels = np.kron(generator.integers(0, 255, (29, 39)), np.ones((8, 8), int))[: SHAPE[0], : SHAPE[1]]
        tifffile.imwrite("a.tif", pixels.astype(np.uint8))
        truth = (generator.random(SHAPE) > 0.5).astype(np.uint8)
        tifffile.imwrite("truth.tif", truth)
        tifffile.imwrite("part.tif", np.where(INSIDE, truth, 255).astype(np.uint8))
        slide = Path("a.tif")
        put(jobs, "plain", slide)
        put(jobs, "drawn", slide, AREAS)
        for name in ("truth", "part"):
            put(jobs, name, slide, AREAS, is_cut=True, reference=Path(f"{name}.tif"))
        put(jobs, "dot", slide, {"dot": box(10.6, 10.6, 10.9, 90), "ring": RING})  # between centres of pixels
        put(jobs, "far", slide, FAR)
        put(jobs, "far_cut", slide, FAR, is_cut=True)
        jobs.run("tile", "predict", "stitch", "objects", "evaluate")
    return folder, jobs


def masks_of(project, name):
    folder, jobs = project
    return [tifffile.imread(folder / jobs.mask(name), series=number) for number in (0, 1)]


def table_of(project, pattern, name):
    folder, jobs = project
    return pd.read_csv(folder / jobs.path(pattern, name), dtype={"region": str, "regions": str}, keep_default_na=False)


def entry_of(project, stage, name):
    folder, jobs = project
    with contextlib.chdir(folder):
        return jobs.entries(stage)[name]


def test_a_mask_inside_its_regions_is_that_of_the_whole_slide(project):
    classes, ids = masks_of(project, "plain")
    cut_classes, cut_ids = masks_of(project, "truth")
    assert 0.02 < classes.mean() < 0.98
    np.testing.assert_array_equal(cut_classes, np.where(INSIDE, classes, 0))
    assert not cut_ids[~INSIDE].any()
    whole = [number for number in np.unique(ids[INSIDE])[1:] if INSIDE[ids == number].all()]
    assert len(whole) > 100
    for number in whole:  # objects that no border cuts are the same; their numbers differ
        (same,) = np.unique(cut_ids[ids == number])
        np.testing.assert_array_equal(cut_ids == same, ids == number)
    assert entry_of(project, "predict", "truth").found["pixels"] < 0.9 * classes.size


def test_regions_that_are_only_measured_change_no_mask(project):
    for one, other in zip(masks_of(project, "plain"), masks_of(project, "drawn"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert table_of(project, paths.REGIONS, "plain")["region"].tolist() == ["slide"] * 2
    whole = table_of(project, paths.REGIONS, "plain").iloc[1]
    assert whole["region_area_px"] == INSIDE.size
    assert int(whole["objects"]) == entry_of(project, "objects", "plain").found["objects"]


@pytest.mark.parametrize("name", ["drawn", "truth"])
def test_sums_of_regions_are_those_of_the_mask_and_the_table(project, name):
    classes, ids = masks_of(project, name)
    table, objects = table_of(project, paths.REGIONS, name), table_of(project, paths.OBJECTS, name)
    assert table["region"].tolist() == ["ring", "ring", "corner", "corner", "overlap", "overlap"]
    assert entry_of(project, "objects", name).found["regions"] == 3
    row, column = (np.floor(objects[f"centroid_{axis}_px"] + 0.5).astype(int) for axis in ("row", "column"))
    for region, area in AREAS.items():
        inside = centres_in(area, SHAPE)
        _, foreground = table[table["region"] == region].to_dict("records")
        own = objects[inside[row, column]]
        assert foreground["region_area_px"] == area.area == inside.sum()
        assert int(foreground["objects"]) == len(own) > 10
        assert foreground["area_px"] == classes[inside].sum()
        assert foreground["area_fraction"] == pytest.approx(classes[inside].mean())
        assert float(foreground["area_px_mean"]) == pytest.approx(own["area_px"].mean())
        assert float(foreground["mean_intensity_0_sd"]) == pytest.approx(own["mean_intensity_0"].std())
        named = objects["regions"].str.split(";").map(lambda names, region=region: region in names)
        assert objects.index[named].tolist() == own.index.tolist()
    assert len(objects) == ids.max()


def test_a_region_without_a_pixel_has_no_area_and_a_warning(project):
    table = table_of(project, paths.REGIONS, "dot").set_index("region")
    assert table.loc["dot", "region_area_px"].tolist() == [0, 0]
    assert table.loc["ring", "region_area_px"].tolist() == [RING.area] * 2
    entry = entry_of(project, "objects", "dot")
    assert entry.found["warnings"] == ["its regions: no pixel has its centre in 'dot'"]
    assert entry_of(project, "objects", "drawn").found["warnings"] == []


def test_regions_of_another_slide_fail_where_they_are_used_first(project):
    folder, jobs = project
    for name, stage in (("far", "objects"), ("far_cut", "tile")):
        failure = entry_of(project, stage, name).failure
        assert failure.stage == stage
        assert failure.message.startswith(f"data/regions/{name}.geojson: annotation 1 spans rows 0 to 5000")
        assert (folder / jobs.mask(name)).exists() is (name == "far")


def test_a_reference_of_a_cut_mask_counts_inside_its_regions_only(project):
    """The same as if it had not been annotated elsewhere."""
    whole, part = (entry_of(project, "evaluate", name).found["metrics"] for name in ("truth", "part"))
    for name in ("reference_sha256", "mask_sha256"):  # a mask has the name of its sample in it
        assert whole.pop(name) != part.pop(name)
    assert whole == part
    assert whole["pixels_ignored"] == (~INSIDE).sum()


@pytest.mark.usefixtures("in_folder")
def test_a_bright_field_slide_without_a_file_has_its_tissue_as_region(generator):
    """Its outlines are a file of regions like any other, and are gone if it has no tissue any more."""
    jobs = Jobs(threads=1)
    write_network(Path("network"), width=2, depth=1)
    pixels = np.full((2100, 2100, 3), 243, np.uint8)
    pixels[600:1100, 320:1500] = generator.integers(60, 160, (500, 1180, 3))
    tifffile.imwrite("a.tif", pixels, photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    jobs.put("a", Path("a.tif"))
    tissue = jobs.path(paths.TISSUE, "a")
    jobs.configure(image={"channels": [0, 1, 2]})
    assert str(tissue) in jobs.run("tile")["a"].files
    (feature,) = json.loads(tissue.read_text())["features"]
    outline, measured = shapely.geometry.shape(feature["geometry"]), feature["properties"]["measurements"]
    assert outline.is_valid
    assert outline.contains(box(320, 600, 1500, 1100))
    assert outline.area == measured["Area px"] < 1.15 * 500 * 1180
    assert measured["Area µm^2"] == pytest.approx(outline.area / 4)
    jobs.put_mask("a", {"classes": np.ones((2100, 2100), np.uint8)})
    jobs.run("objects")
    table = pd.read_csv(jobs.path(paths.REGIONS, "a"))
    assert table["region"].unique().tolist() == ["tissue"]
    assert table["region_area_px"].unique().tolist() == [outline.area]
    tifffile.imwrite("a.tif", pixels[:500], photometric="rgb")
    jobs.put("a", Path("a.tif"))
    jobs.run("tile")
    assert not tissue.exists()
