"""The command ``export``: each target has the numbers of the tables, by readers that know only its format."""

import contextlib
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import polars
import pytest
import shapely
import tifffile
import zarr
from shapely.geometry import Polygon, shape

from pipeline.__main__ import main
from pipeline.base import paths
from pipeline.base.errors import Failure, SlidemillError
from pipeline.masks.ome_tiff import write_label_images
from pipeline.project.drop.drop_folder import Sample, write_samples
from pipeline.project.jobs.expected import Expected
from pipeline.project.jobs.ledger import Entry, ledger_path, write_ledger
from pipeline.project.stage_settings import stage_config
from pipeline.report.exports.coco import without_holes, write_coco
from pipeline.report.exports.ome_zarr import write_masks
from pipeline.report.exports.selection import Selection
from pipeline.report.exports.spatialdata import names_of, write_spatialdata
from pipeline.settings.schema import parse_settings
from tests.support.masks import blobs, numbered

TEXTS = ["sample", "model", "group", "class", "regions"]
MODEL = "net"
NAMES = ["NA", "plate/a"]  # not what pandas takes for a missing value
SHAPES = {"NA": (120, 100), "plate/a": (90, 110)}  # of masks
STEPS = {"NA": 2, "plate/a": 1}  # pixels of the file in one of the mask, along a side
SETTINGS = parse_settings(
    {
        "classes": ["background", "nucleus", "cell"],
        "training": {"kind": "classes"},
        "models": {MODEL: {"checkpoint": "network/model.safetensors"}},
        "image": {"pixel_size_um": 1.0, "fallback_pixel_size_um": 1.0},
        "measurements": {
            "groups": ["shape", "neighbours"],
            "positive": {0: 127},
            "score_compartment": {0: "body_ring"},
            "compartments": {"body": {"nucleus": "nucleus", "expand_um": 2}},
        },
    },
    source="",
)
MEASURED = {
    "tile": {"pixels": 10_000, "slide_sha256": "", "appearance": {}},
    "predict": {
        **{"uncertain": 0.1, "tile_mismatch": None, "weights_sha256": "", "device": "cpu", "precision": "float32"},
        **{
            "pixels": 10_000,
            "wall_s": 1.0,
            "network_s": 0.8,
            "reading_s": 0.1,
            "writing_s": 0.1,
            "differing_px": 0,
            "compared_px": 0,
        },
    },
    "stitch": {"mask_sha256": ""},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two slides with masks and objects, and one whose first stage failed."""
    folder = tmp_path_factory.mktemp("export")
    generator = np.random.default_rng(0)
    with contextlib.chdir(folder):
        samples = {name: Sample(slide=f"{name[-1]}.tif", version="1", batch="1") for name in (*NAMES, "plate/bad")}
        write_samples(samples, "snakemake", "")
        Path("network").mkdir()
        Path("network/model.safetensors").write_bytes(b"weights")
        Path("network/model.json").write_text("{}")
        Path("config").mkdir()
        Path("config/samples.csv").write_text("sample,group\nplate/a,mouse 1\n")
        for name in NAMES:
            write_images(name, Path(samples[name].slide), generator)
        for stage, found in MEASURED.items():
            with write_ledger(ledger_path(stage, MODEL, "1"), stage=stage, model=MODEL, batch="1") as writer:
                for name in samples:
                    wanted = Expected(SETTINGS).of(MODEL, samples[name])[stage]
                    failure = Failure("tile", "SlideError", "too small") if name == "plate/bad" else None
                    writer.record(name, Entry(fingerprint=wanted, found=found, failure=failure))
        config = stage_config(SETTINGS, "objects", MODEL)
        job = ["--model", MODEL, "--batch", "1", "--threads", "1", "--memory-mb", "1000", "--config", config]
        assert main(["objects", *job]) == 0
        assert main(["report", "--output", "results", "--config", stage_config(SETTINGS, "report")]) == 0
    return folder


def write_images(name, path, generator):
    """Write a slide and its mask, whose nuclei have cells in them, as holes."""
    rows, columns = (STEPS[name] * side for side in SHAPES[name])
    size = {"resolution": (1e4 * STEPS[name],) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, generator.integers(0, 255, (rows, columns), dtype=np.uint8), **size)
    classes = blobs(generator, SHAPES[name])
    mask = Path(paths.MASK.format(model=MODEL, sample=name))
    mask.parent.mkdir(parents=True, exist_ok=True)
    images = {"classes": classes, "instances": numbered(classes)}
    about = {"sample": name, "classes": "background, nucleus, cell", "stage": "stitch", "config": {}, "sha256": {}}
    write_label_images(mask, images, pixel_size_um=(1.0, 1.0), annotations=about)


@pytest.fixture
def in_project(project, monkeypatch):
    monkeypatch.chdir(project)


@pytest.fixture
def objects(project):
    """The tables of objects as they are, one below the other."""
    tables = [
        pd.read_csv(file_of(project, paths.OBJECTS, name), keep_default_na=False, na_values=[""]).assign(
            sample=name, model=MODEL, group="mouse 1" if name == "plate/a" else ""
        )
        for name in NAMES
    ]
    return pd.concat(tables, ignore_index=True)


def file_of(project, pattern, name):
    return project / pattern.format(model=MODEL, sample=name)


def export(to, output, *samples, **flags):
    more = [word for flag, value in flags.items() for word in (f"--{flag}", value)]
    return main(["export", *samples, "--to", to, "--output", str(output), *more])


def same(found, wanted):
    """Compare columns as text or as numbers, with the order of rows."""
    assert sorted(found.columns) == sorted(wanted.columns)
    for name in wanted.columns:
        if name in TEXTS:
            assert found[name].fillna("").tolist() == wanted[name].tolist()
        else:
            np.testing.assert_array_equal(found[name].to_numpy(float), wanted[name].to_numpy(float), err_msg=name)


@pytest.mark.usefixtures("in_project")
def test_csv_and_parquet_have_every_row_of_the_tables(tmp_path, objects):
    assert len(objects) > 50
    assert export("csv", tmp_path / "all.csv") == 0
    same(pd.read_csv(tmp_path / "all.csv", keep_default_na=False, na_values=[""]), objects)
    assert export("parquet", tmp_path / "all.parquet") == 0
    table = polars.read_parquet(tmp_path / "all.parquet")
    same(pd.DataFrame(table.to_dict(as_series=False)), objects)
    whole = {name for name, kind in table.schema.items() if kind == polars.Int64}
    box = {"top_px", "left_px", "bottom_px", "right_px"}
    assert whole == {"id", "area_px", "holes", "neighbours", "positive_0"} | box
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "all.parquet"]


def read_element(node):
    """Read an element of an AnnData file as its specification says."""
    kind, version = node.attrs["encoding-type"], node.attrs["encoding-version"]
    assert version == ("0.1.0" if kind in {"anndata", "dict"} else "0.2.0")
    if kind in {"array", "string"}:
        return node[()]
    if kind == "string-array":
        return node.asstr()[()]
    if kind == "categorical":
        assert not node.attrs["ordered"]
        return read_element(node["categories"])[read_element(node["codes"])]
    if kind == "dataframe":
        columns = {name: read_element(node[name]) for name in node.attrs["column-order"]}
        assert set(node) == {*columns, node.attrs["_index"]}
        return pd.DataFrame(columns, index=read_element(node[node.attrs["_index"]]))
    assert kind in {"dict", "anndata"}
    return {name: read_element(node[name]) for name in node}


@pytest.mark.usefixtures("in_project")
def test_anndata_has_measurements_places_and_names(tmp_path, objects):
    assert export("anndata", tmp_path / "all.h5ad") == 0
    with h5py.File(tmp_path / "all.h5ad") as file:
        found = read_element(file)
    assert set(found) == {"X", "layers", "obs", "obsm", "obsp", "uns", "var", "varm", "varp"}
    assert found["obs"].index.tolist() == [f"{one.sample}/{one.id}" for one in objects.itertuples()]
    places = objects[["centroid_column_px", "centroid_row_px"]].to_numpy()
    np.testing.assert_array_equal(found["obsm"]["spatial"], places)
    np.testing.assert_array_equal(found["obsm"]["spatial_um"], places)  # masks are of 1 µm
    measured = pd.DataFrame(found["X"], columns=found["var"].index)
    assert {"area_px", "mean_intensity_0", "perimeter_um", "neighbours"} < set(measured.columns)
    centroid = pd.DataFrame(places, columns=["centroid_column_px", "centroid_row_px"])
    same(pd.concat([measured, found["obs"].reset_index(drop=True), centroid], axis=1), objects)
    about = found["var"].loc["mean_intensity_0"]
    assert (about["unit"], about["qupath"]) == ("as in the slide", "Channel 0: Mean")
    assert about["meaning"] == "Mean of its pixels in channel 0."


def read_zarr_element(node):
    """Read an element of an AnnData table in Zarr as its specification says."""
    kind, version = node.attrs["encoding-type"], node.attrs["encoding-version"]
    assert version == ("0.1.0" if kind in {"anndata", "dict"} else "0.2.0")
    if kind in {"array", "string-array", "string"}:
        return node[()]
    if kind == "categorical":
        return read_zarr_element(node["categories"])[read_zarr_element(node["codes"])]
    if kind == "dataframe":
        columns = {name: read_zarr_element(node[name]) for name in node.attrs["column-order"]}
        return pd.DataFrame(columns, index=read_zarr_element(node[node.attrs["_index"]]))
    assert kind in {"dict", "anndata"}
    return {name: read_zarr_element(member) for name, member in node.members()}


@pytest.mark.usefixtures("in_project")
def test_spatialdata_has_the_ids_of_each_mask_and_a_table_that_names_them(tmp_path, objects, project):
    assert export("spatialdata", tmp_path / "all.zarr") == 0
    root = zarr.open_group(tmp_path / "all.zarr", mode="r")
    names = {"NA": "NA", "plate/a": "plate_a"}
    assert root["labels"].attrs["ome"] == {"labels": list(names.values())}
    for sample, name in names.items():
        image = root["labels"][name]
        (multiscale,) = image.attrs["ome"]["multiscales"]
        pixels, um = multiscale["coordinateTransformations"]
        assert (pixels["type"], pixels["output"]["name"]) == ("identity", "global")
        assert (um["scale"], um["output"]["name"]) == ([1.0, 1.0], name)  # masks are of 1 µm
        ids = tifffile.imread(file_of(project, paths.MASK, sample), series=1)
        for number, level in enumerate(multiscale["datasets"]):
            step = level["coordinateTransformations"][0]["scale"][0]
            np.testing.assert_array_equal(image[level["path"]][:], ids[:: int(step), :: int(step)])
            assert step == 2**number
    table = root["tables"]["objects"]
    found = read_zarr_element(table)
    keys = {"region_key": "region", "instance_key": "id"}
    assert (
        {name: table.attrs[name] for name in keys}
        == keys
        == {name: str(found["uns"]["spatialdata_attrs"][name]) for name in keys}
    )
    assert table.attrs["region"] == found["uns"]["spatialdata_attrs"]["region"].tolist() == ["NA", "plate_a"]
    obs = found["obs"]
    assert obs["region"].tolist() == [names[sample] for sample in objects["sample"]]
    assert obs["id"].tolist() == objects["id"].tolist()
    assert obs.index.tolist() == [f"{one.sample}/{one.id}" for one in objects.itertuples()]
    measured = pd.DataFrame(found["X"], columns=found["var"].index)
    for name in ("area_px", "mean_intensity_0", "positive_0"):
        np.testing.assert_array_equal(measured[name], objects[name])
    np.testing.assert_array_equal(found["obsm"]["spatial"], objects[["centroid_column_px", "centroid_row_px"]])


def test_names_of_label_images_are_allowed_and_differ():
    """Of letters, digits and ``_.-``; also without regard to case."""
    names = names_of(["a/b", "a_b", "A#B", "ü #2", "__x", "..."])
    assert names == {"a/b": "a_b", "a_b": "a_b_2", "A#B": "A_B_3", "ü #2": "2", "__x": "x", "...": "sample"}


@pytest.mark.usefixtures("in_project")
def test_coco_has_the_outlines_and_areas_of_the_image_files(tmp_path, objects, project):
    assert export("coco", tmp_path / "all.json") == 0
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["categories"] == [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "cell"}]
    images = {image["sample"]: image for image in found["images"]}
    assert {name: image["file_name"] for name, image in images.items()} == {"NA": "A.tif", "plate/a": "a.tif"}
    for name, image in images.items():
        assert (image["height"], image["width"]) == tuple(side * STEPS[name] for side in SHAPES[name])
    assert [one["id"] for one in found["annotations"]] == list(range(1, len(objects) + 1))
    sample_of = {image["id"]: image["sample"] for image in found["images"]}
    annotations = {(sample_of[one["image_id"]], one["object"]): one for one in found["annotations"]}
    assert len(annotations) == len(objects) > 30
    for name in NAMES:
        drawn = json.loads(file_of(project, paths.ANNOTATIONS, name).read_text())["features"]
        polygons = {int(one["properties"]["name"]): shape(one["geometry"]) for one in drawn}
        for one in objects[objects["sample"] == name].itertuples():
            annotation, step = annotations[name, one.id], STEPS[name]
            parts = [Polygon(np.reshape(ring, (-1, 2))) for ring in annotation["segmentation"]]
            assert shapely.union_all(parts).equals(polygons[one.id])
            assert sum(part.area for part in parts) == annotation["area"] == one.area_px * step**2
            box = [one.left_px, one.top_px, one.right_px - one.left_px, one.bottom_px - one.top_px]
            assert annotation["bbox"] == [side * step for side in box]
            assert SETTINGS.classes[annotation["category_id"]] == objects.loc[one.Index, "class"]
    assert (objects["holes"] > 0).any()
    assert any(len(one["segmentation"]) > 1 for one in found["annotations"])


def test_polygons_without_holes_make_up_one_with_holes():
    square = shapely.box(0, 0, 10, 10)
    around = Polygon([(2, 2), (8, 2), (8, 8), (2, 8), (2, 6), (6, 6), (6, 4), (2, 4)])  # open to the left
    polygon = square - around - shapely.box(3, 4.5, 5, 5.5) - shapely.box(2, 9, 3, 9.5)
    assert len(polygon.interiors) == 3
    parts = without_holes(polygon)
    assert all(not part.interiors for part in parts)
    assert sum(part.area for part in parts) == polygon.area
    assert shapely.union_all(parts).equals(polygon)


@pytest.mark.usefixtures("in_project")
def test_masks_of_a_folder_become_ome_zarr(tmp_path, project):
    assert export("ome-zarr", tmp_path / "masks", "plate/") == 0
    found = zarr.open_group(tmp_path / "masks" / "plate" / "a.ome.zarr", mode="r")
    mask = tifffile.imread(file_of(project, paths.MASK, "plate/a"), series=0)
    np.testing.assert_array_equal(found["0"][:], mask)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["plate"]


@pytest.mark.usefixtures("in_project")
def test_some_samples(tmp_path):
    assert export("csv", tmp_path / "one.csv", "plate/a", model=MODEL) == 0
    assert set(pd.read_csv(tmp_path / "one.csv")["sample"]) == {"plate/a"}


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["--to", "xml"],
            "--to xml: unknown; choose one of csv, parquet, anndata, coco, spatialdata, slide-labels, ome-zarr",
        ),
        (["plat", "--to", "csv"], "plat: no sample or folder of that name; there are 3: "),
        (["plate/bad", "--to", "csv"], "plate/bad is not done: "),
        (["--to", "csv", "--model", "other"], f"--model other: no network of that name; choose one of {MODEL}"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, words, reason):
    assert main(["export", *words, "--output", str(tmp_path / "x")]) == 1
    assert f"error: export: {reason}" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(("to", "module"), [("parquet", "polars"), ("anndata", "h5py")])
def test_a_missing_package_is_named_with_its_extra(tmp_path, capsys, monkeypatch, to, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert export(to, tmp_path / "x") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"the package {module} is not installed; pip install 'slidemill[{to}]'" in line


@pytest.mark.usefixtures("in_project")
def test_what_exists_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert export("csv", tmp_path / "mine") == 1
    assert "already exists" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.usefixtures("in_folder")
def test_without_a_run_there_is_nothing_to_export(capsys):
    assert export("csv", "x.csv") == 1
    assert "results/provenance.json: not found; run the project first" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("to", "write"), [("coco", write_coco), ("spatialdata", write_spatialdata), ("ome-zarr", write_masks)]
)
def test_stacks_are_refused_in_one_line(tmp_path, to, write):
    settings = parse_settings({"image": {"z": "each"}}, source="")
    with pytest.raises(SlidemillError, match=f"--to {to}: image.z: each makes stacks, which it does not write; export"):
        write(tmp_path / "x", Selection(outcomes=[], settings=settings, groups={}))
