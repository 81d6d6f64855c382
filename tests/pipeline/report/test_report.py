"""From slides, masks and ledgers to the report: the jobs draw, the report shows what they drew and measured."""

import csv
import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from shapely.geometry import box

from pipeline.base import paths
from pipeline.masks.ome_tiff import write_label_images
from pipeline.project.drop.drop_folder import Sample, write_samples
from pipeline.project.jobs.expected import Expected
from pipeline.project.jobs.ledger import Entry, ledger_path, network_ledger_path, write_ledger
from pipeline.project.stage_settings import stage_config
from pipeline.project.summary import last_lines
from pipeline.report import page_content
from pipeline.settings.schema import Settings
from pipeline.settings.stage_sections import EvaluateConfig, ObjectsConfig
from pipeline.stages import evaluate, objects, report
from tests.support.masks import blobs
from tests.support.outlines import write_outlines
from tests.support.paths import ROOT

SETTINGS = Settings.model_validate({"classes": ["background", "cell", "edge"], "training": {"kind": "classes"}})
MEASURED = {
    "tile": {"pixels": 2400, "slide_sha256": "of the slide", "appearance": {"focus": -1.0}},
    "predict": {
        **{"uncertain": 0.1, "tile_mismatch": None, "weights_sha256": "of the network", "device": "cpu"},
        **{
            "precision": "float32",
            "pixels": 2_000_000,
            "wall_s": 1.0,
            "network_s": 0.5,
            "reading_s": 0.4,
            "writing_s": 0.1,
            "differing_px": 0,
            "compared_px": 0,
        },
    },
    "stitch": {"mask_sha256": "of the mask"},
}


@pytest.fixture
def project(in_folder, generator):
    """A project of three slides: one with a reference and regions, one without, a refused one; the last stages ran."""
    samples = {
        name: Sample(slide=f"data/slides/{name}.tif", version="1", batch="plate/1") for name in ("plate/a", "plate/b")
    }
    drawn = write_outlines(
        Path("data/regions/plate/a.geojson"), {"left": box(0, 0, 30, 40), "right": box(30, 0, 60, 40)}
    )
    beside = {"reference": "data/references/plate/a.tif", "regions": str(drawn)}
    samples["plate/a"] = Sample(**vars(samples["plate/a"]) | beside)
    samples["bad"] = Sample(slide="data/slides/bad.tif", refused="=rename it")
    for sample in samples.values():
        Path(sample.slide).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(sample.slide, generator.integers(0, 200, (40, 60), dtype=np.uint8))
    write_samples(samples, "snakemake --cores 1", "")
    network = in_folder / paths.NETWORK.format(model="unet")
    network.parent.mkdir(parents=True)
    network.write_bytes(b"weights")
    for name in ("plate/a", "plate/b"):
        mask = Path(paths.MASK.format(model="unet", sample=name))
        mask.parent.mkdir(parents=True, exist_ok=True)
        write_label_images(mask, {"classes": blobs(generator, (40, 60))}, pixel_size_um=None, annotations={})
    reference = in_folder / "data/references/plate/a.tif"
    reference.parent.mkdir(parents=True)
    tifffile.imwrite(reference, blobs(generator, (40, 60)))
    for stage, found in MEASURED.items():
        with write_ledger(ledger_path(stage, "unet", "plate/1"), stage=stage, model="unet", batch="plate/1") as writer:
            for name in ("plate/a", "plate/b"):
                fingerprint = Expected(SETTINGS).of("unet", samples[name])[stage]
                writer.record(name, Entry(fingerprint=fingerprint, found=found))
    job = {"model": "unet", "batch": "plate/1", "threads": 1, "memory_mb": 1000}
    objects.run(**job, config=ObjectsConfig.model_validate_json(stage_config(SETTINGS, "objects", "unet")))
    evaluate.run(**job, config=EvaluateConfig.model_validate_json(stage_config(SETTINGS, "evaluate", "unet")))
    return in_folder


def rows_of(table):
    with table.open(newline="", encoding="utf-8") as file:
        return {row["sample"]: row for row in csv.DictReader(file)}


def pictures_in(page):
    """The URLs of the pictures of each sample, None without."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert all(shown is None or shown["shape"] == [40, 60] for shown in data["pictures"])
    return [
        shown and {name: shown["start"] + ending for name, ending in data["endings"][shown["ending"]].items()}
        for shown in data["pictures"]
    ]


def test_every_sample_is_a_row_of_what_its_stages_measured(project):
    report.run(output=Path("results"), config=SETTINGS)
    rows = rows_of(project / paths.ALL_METRICS)
    assert {name: row["status"] for name, row in rows.items()} == {
        "plate/a": "done",
        "plate/b": "done",
        "bad": "failed",
    }
    own = rows_of(project / paths.METRICS.format(model="unet", sample="plate/a"))["plate/a"]
    assert {name: float(rows["plate/a"][name]) for name in own if name.startswith(("dice", "pixels"))} == {
        name: float(value) for name, value in own.items() if name.startswith(("dice", "pixels"))
    }
    with Path(rows["plate/b"]["objects_table"]).open() as file:
        assert int(rows["plate/b"]["objects"]) == sum(1 for _ in file) - 1
    assert rows["plate/b"]["foreground_dice"] == rows["bad"]["mask"] == ""
    assert rows["bad"]["error"] == "'=rename it"  # not a formula


@pytest.mark.usefixtures("project")
def test_the_data_dictionary_has_every_column_of_every_table():
    report.run(output=Path("results"), config=SETTINGS)
    meanings = pd.read_csv(paths.COLUMNS)
    for table in (paths.METRICS_TABLE, paths.ALL_METRICS, paths.SUMMARY, paths.ALL_OBJECTS, paths.ALL_REGIONS):
        known = meanings.loc[meanings["table"] == Path(table).name, "column"]
        assert pd.read_csv(table, nrows=1).columns.tolist() == known.tolist(), table


@pytest.mark.usefixtures("project")
def test_the_lines_in_the_documentation_read_the_results():
    report.run(output=Path("results"), config=SETTINGS)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 7
    known = {}
    for block in blocks:
        assert len(block.strip().splitlines()) <= 5
        exec(block, known)
    summary = known["summary"].query("sample == 'plate/b' and model == 'unet'")
    objects = known["objects"].query("sample == 'plate/b'")
    assert summary["count"].sum() == len(objects) == known["counts"]["plate/b"]
    assert summary["share"].sum() == pytest.approx(1)
    assert known["columns"]["column"].isin(known["long"]["column"]).any()
    halves = known["regions"].query("sample == 'plate/a' and `class` != 'background'")
    whole = known["summary"].query("sample == 'plate/a'")
    assert halves["region"].unique().tolist() == ["left", "right"]
    assert halves["objects"].sum() == whole["count"].sum()


def test_the_page_has_a_table_of_the_regions_that_were_drawn(project):
    report.run(output=Path("results"), config=SETTINGS)
    page = (project / paths.PAGE).read_text()
    assert ">Regions<" in page
    table = page.partition(">Regions<")[2].partition("</table>")[0]
    assert "left" in table
    assert "plate/a" in table
    assert "plate/b" not in table


def test_the_provenance_has_every_sample(project):
    report.run(output=Path("results"), config=SETTINGS)
    origin = json.loads((project / paths.PROVENANCE).read_text())
    first, _, bad = origin["samples"]
    assert first == {
        **{"sample": "plate/a", "model": "unet", "status": "done", "slide": "data/slides/plate/a.tif"},
        **{"slide_sha256": "of the slide", "mask": "results/masks/unet/plate/a.ome.tiff"},
        **{"weights_sha256": "of the network", "device": "cpu", "precision": "float32"},
    }
    assert origin["sha256"][first["mask"]] == "of the mask"
    assert origin["command"] == "snakemake --cores 1"
    assert (bad["status"], bad["mask"], bad["weights_sha256"]) == ("failed", None, None)


@pytest.mark.usefixtures("project")
def test_doubts_about_training_images_are_a_table_of_the_page():
    settings = Settings.model_validate({"classes": ["background", "cell"], "models": {"unet": {"folds": 2}}})
    assert page_content.doubts_tables(settings) == []
    for fold, images in (("unet/fold1", "ab"), ("unet/fold2", "ba")):
        warnings = [f"{image}: its labels: one value" for image in images] + ["c/d: rotated: 6"]
        with write_ledger(network_ledger_path("train", fold), stage="train", model=fold) as writer:
            writer.record(fold, Entry(fingerprint="1", found={"warnings": warnings}))
    (table,) = page_content.doubts_tables(settings)
    assert [list(row.values()) for row in table.rows] == [
        ["unet", 2, "a", "its labels: one value"],
        ["unet", 1, "c/d", "rotated: 6"],
    ]


@pytest.mark.parametrize("most", [300, 2])
def test_the_page_shows_the_pictures_that_the_jobs_drew(project, monkeypatch, most):
    monkeypatch.setattr(page_content, "MOST_EMBEDDED", most)
    for slide in (project / "data/slides/plate").iterdir():
        slide.unlink()  # it needs none
    report.run(output=Path("results"), config=SETTINGS)
    nothing, *shown = pictures_in(project / paths.PAGE)
    assert nothing is None
    assert [sorted(layers) for layers in shown] == [
        ["error", "image", "marks", "predicted", "predicted_outlines", "truth", "truth_outlines"],
        ["image", "marks", "predicted", "predicted_outlines"],
    ]
    for name, layers in zip(("plate/a", "plate/b"), shown, strict=True):
        for layer, url in layers.items():
            drawn = project / paths.PICTURE[layer].format(model="unet", sample=name)
            if most == 2:
                assert project / "results" / url == drawn
            assert (b64decode(url.partition("base64,")[2]) if most == 300 else b"") in drawn.read_bytes()


@pytest.mark.parametrize("pattern", [paths.OBJECTS, paths.PICTURE["predicted"]])
def test_a_sample_whose_file_is_gone_waits_to_be_made_again(project, pattern):
    (project / pattern.format(model="unet", sample="plate/b")).unlink()
    report.run(output=Path("results"), config=SETTINGS)
    rows = rows_of(project / paths.ALL_METRICS)
    assert {name: row["status"] for name, row in rows.items()} == {
        "plate/a": "done",
        "plate/b": "waiting",
        "bad": "failed",
    }


def test_the_last_lines_are_those_of_the_report(project):
    report.run(output=Path("results"), config=SETTINGS)
    text, failed = last_lines(project / paths.REPORT, SETTINGS)
    assert text.startswith("2 done, 1 failed\n  failed: bad at drop: '=rename it\n")
    assert failed == 1


def test_a_run_without_any_sample_has_a_report(in_folder):
    report.run(output=Path("results"), config=SETTINGS)
    assert (in_folder / paths.PAGE).is_file()
    assert rows_of(in_folder / paths.ALL_METRICS) == {}
    assert json.loads((in_folder / paths.PROVENANCE).read_text())["samples"] == []
