"""The whole chain on real micrographs: weigh, train, tile, predict, stitch, evaluate, report."""

import csv

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import tifffile
import yaml

from pipeline.base.files import read_json
from tests.support.workflow import Project

MODEL = {
    "options": {"width": 8, "depth": 3},
    "max_steps": 80,
    "max_minutes": 5,
    "validate_every": 40,
    "patch_px": 128,
    "batch_size": 6,
    "learning_rate": 0.003,
}


def run(folder, **settings):
    project = Project(folder)
    (folder / "config").mkdir()
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings | {"models": {"net": MODEL}, "settle_s": 0}))
    project.run()
    return project


def check_contracts(project, sample, reference):
    """Every result is there, and the Dice of the mask is that of scikit-learn."""
    results = project.folder / "results"
    card = read_json(results / "models" / "net" / "model.json")
    assert (card["stride_px"], card["context_px"]) == (8, 46)
    history = pd.read_csv(results / "models" / "net" / "history.csv")
    assert history["step"].tolist() == [40, 80]
    assert history["foreground_dice"].max() == pytest.approx(card["metrics"]["foreground_dice"])
    plan = read_json(results / "plans" / "net" / f"{sample}.json")
    assert tuple(plan["grid"]["shape"]) == reference.shape
    with tifffile.TiffFile(results / "masks" / "net" / f"{sample}.ome.tiff") as tiff:
        classes, instances = (series.asarray() for series in tiff.series)
        assert len(tiff.series[0].levels) > 1
    assert ((instances > 0) == (classes > 0)).all()
    row = pd.read_csv(results / "metrics" / "net" / f"{sample}.csv").iloc[0]
    expected = sklearn.metrics.f1_score(reference.ravel(), classes.ravel(), average=None)
    labels = [name.removeprefix("pixels_truth_") for name in row.index if name.startswith("pixels_truth_")]
    np.testing.assert_allclose(row[[f"dice_{label}" for label in labels]].astype(float), expected)
    assert row["pixels"] == reference.size
    assert (project.metrics().loc[[sample], "status"] == "done").all()  # with each network
    assert project.planned() == {}
    return expected


def test_cells_and_membranes_of_isbi2012(data, tmp_path):
    """Two slices: the halves of one train and validate, the other is segmented."""
    project = Project(tmp_path)
    for kind, source in (("images", "images"), ("labels", "masks")):
        pixels = tifffile.imread(data / "isbi2012" / source / "00.tif")
        project.drop(f"training/{kind}/00_upper.tif", pixels[:256])
        project.drop(f"training/{kind}/01_lower.tif", pixels[256:])
    for kind, source in (("slides", "images"), ("references", "masks")):
        project.drop(f"{kind}/20.tif", (data / "isbi2012" / source / "20.tif").read_bytes())
    run(tmp_path, classes=["membrane", "cell"], training={"kind": "classes", "values": [0, 255]})
    reference = tifffile.imread(data / "isbi2012" / "masks" / "20.tif") // 255
    membrane, cell = check_contracts(project, "20", reference)
    assert membrane > 0.5  # a map of nothing but cells has 0
    assert cell > 0.85
    with tifffile.TiffFile(tmp_path / "results" / "masks" / "net" / "20.ome.tiff") as tiff:
        assert tiff.pages.first.resolution == pytest.approx((2_500_000, 2_500_000))  # 4 nm, as in the slide


def test_nuclei_of_dsb2018(data, tmp_path):
    """Four images of four fields of view: two train, one validates, one is segmented, also with its mirror image."""
    with (data / "dsb2018" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["modality"] == "fluorescence" and row["size_class"] == "256x256"
        ]
    fields = {row["fov_group"]: row["id"] for row in rows if 10 <= int(row["n_nuclei"]) <= 40}
    chosen = sorted(fields.values())[:4]
    project = Project(tmp_path)
    for number, name in enumerate(chosen):
        for kind, source in (("images", "images"), ("labels", "labels")):
            place = f"training/{kind}" if number < 3 else {"images": "slides", "labels": "references"}[kind]
            project.drop(f"{place}/{number}.tif", (data / "dsb2018" / source / f"{name}.tif").read_bytes())
    ensembles = {"mirrored": {"members": ["net"], "symmetries": "left_right"}}
    run(tmp_path, classes=["background", "nucleus"], ensembles=ensembles)
    reference = tifffile.imread(data / "dsb2018" / "labels" / f"{chosen[3]}.tif") > 0
    background, nucleus = check_contracts(project, "3", reference.astype(np.uint8))
    assert nucleus > 0.7
    assert background > 0.9
    alone, mirrored = (read_json(tmp_path / "results" / "models" / name / "model.json") for name in ("net", "mirrored"))
    ways = [[one["settings"] for one in card["parting"]] for card in (alone, mirrored)]
    assert ways[0] == ways[1] != []
    assert alone["parting"] != mirrored["parting"]  # compared itself, on the image that validates
