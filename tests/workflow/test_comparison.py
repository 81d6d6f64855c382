"""Several models in one run: each segments every slide, and one table ranks them."""

import numpy as np
import pandas as pd
import pytest

from pipeline.base.files import read_json
from tests.support.networks import CLASSES, thin_options, write_network

MODELS = {name: {"checkpoint": f"{name}/model.safetensors"} for name in ("exact", "blended")}


@pytest.fixture(scope="module")
def compared(project, micrograph):
    """A run of a network with exact tiles and one with blended tiles over slides of several tiles."""
    write_network(project.folder / "exact", width=2, depth=2)
    write_network(project.folder / "blended", "pspnet", **thin_options("pspnet"))
    for number, pixels in enumerate((micrograph, micrograph.T.copy())):
        project.drop(f"slides/plate/{number}.tif", pixels)
        project.drop(f"references/plate/{number}.tif", (pixels > 99).astype(np.uint8))
    project.drop("slides/alone.tif", micrograph)
    project.configure(models=MODELS, tiling={"tile_px": 32})
    project.run()
    return project


def test_a_row_per_model_the_best_first(compared):
    ranking, samples = compared.comparison(), compared.metrics()
    assert ranking["rank"].tolist() == [1, 2]
    assert ranking["foreground_dice"].is_monotonic_decreasing
    scores = ["foreground_dice", "dice_mean", *(f"dice_{name}" for name in CLASSES), "jaccard_mean"]
    means = samples.groupby("model")[scores].mean()
    np.testing.assert_allclose(ranking[means.columns], means.loc[ranking.index])
    assert ranking["samples"].tolist() == [2, 2]  # the third slide has no reference
    assert ranking["failed"].tolist() == [0, 0]
    assert ranking["train_minutes"].isna().all()


def test_speed_is_measured_over_all_batches(compared):
    ranking = compared.comparison()
    for model in MODELS:
        ledgers = (compared.folder / "results" / "ledgers" / "predict" / model).rglob("*.json")
        speeds = [entry["found"] for path in ledgers for entry in read_json(path)["samples"].values()]
        assert [speed["pixels"] for speed in speeds] == [70 * 90] * 3
        expected = sum(speed["pixels"] for speed in speeds) / sum(speed["wall_s"] for speed in speeds) / 1e6
        assert ranking.loc[model, "predict_mpx_per_s"] == pytest.approx(expected)


def test_only_blended_tiles_have_a_mismatch(compared):
    ranking = compared.comparison()
    assert ranking["tiling"].to_dict() == {name: name for name in MODELS}
    assert np.isnan(ranking.loc["exact", "tile_mismatch"])
    assert 0 <= ranking.loc["blended", "tile_mismatch"] < 1


def test_the_page_shows_the_ranking(compared):
    page = (compared.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Models</h2>" in page
    for row in compared.comparison().itertuples():
        for value in (row.foreground_dice, row.sd_foreground_dice, row.min_foreground_dice):
            assert f"{value:.3f}" in page


def test_a_model_that_is_removed_leaves_the_ranking_and_no_other_runs_again(compared):
    assert compared.planned() == {}
    compared.configure(models={"exact": MODELS["exact"]}, tiling={"tile_px": 32})
    assert compared.planned() == {"report": 1, "finish": 1, "all": 1}


def test_a_changed_sample_sheet_renews_the_report_alone(compared):
    sheet = compared.folder / "config" / "samples.csv"
    sheet.write_text("sample,group\nplate/0,mouse\nplate/1,mouse\n")
    assert compared.planned() == {"report": 1, "finish": 1, "all": 1}
    compared.run()
    cohort = pd.read_csv(compared.folder / "results" / "cohort.csv")
    cohort = cohort.query("model == 'exact' and measure == 'dice' and `class` == 'mean'").iloc[0]
    assert (cohort["samples"], cohort["groups"]) == (2, 1)
    sheet.write_text("sample,group\nplate/0,\n")
    refused = compared.snakemake("--dry-run")
    assert refused.returncode != 0
    sheet.unlink()
    printed = refused.stdout + refused.stderr
    assert "config/samples.csv: line 2 has no group; fill it in or remove the line" in printed
    assert "Traceback" not in printed


def test_an_ensemble_is_one_more_network_that_follows_its_members(compared):
    for sample in ("alone", "plate/1"):
        compared.slide(sample).unlink()
    members = dict.fromkeys(("exact", "two"), MODELS["exact"])
    compared.configure(
        models=members, tiling={"tile_px": 32}, ensembles={"all": {"members": [*members], "symmetries": "flips"}}
    )
    assert compared.planned()["combine"] == 1
    compared.run()
    ranking = compared.comparison()
    assert set(compared.metrics()["model"]) == {*members, "all"}
    assert ranking.loc["all", "parameters"] == 2 * ranking.loc["exact", "parameters"]
    assert ranking.loc["all", "tiling"] == "exact"
    assert compared.planned() == {}
