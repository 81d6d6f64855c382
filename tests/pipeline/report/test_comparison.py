"""Networks are ranked by their mean Dice on their common samples; unknown values are empty, never 0."""

from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from models.base.geometry import Geometry
from pipeline.base import paths
from pipeline.base.files import write_json
from pipeline.report.comparison import rank_models, shared_samples
from pipeline.settings.schema import Settings
from pipeline.slides.intensity import NORMALIZATION
from tests.support.networks import CARD
from tests.support.prediction import SPEED

NAN = float("nan")
pytestmark = pytest.mark.usefixtures("in_folder")
BATCHES = ["alone", "plate"]
TWO_BATCHES = {"a": {"plate/1": (1, 1), "plate/2": (1, 1), "alone": None}}


def settings_of(*names, **settings):
    return Settings.model_validate({"models": {name: {} for name in names}} | settings)


def table_of(scores):
    """A table of metrics from (background, object) Dice by model and sample; None is a failed sample."""
    rows = []
    for model, samples in scores.items():
        for sample, dice in samples.items():
            values = pd.Series(dice if dice is not None else (NAN, NAN), dtype=float)
            row = {"dice_mean": values.mean(), "dice_background": values[0], "dice_object": values[1]}
            status = "failed" if dice is None else "done"
            rows.append({"sample": sample, "model": model, "status": status, "jaccard_mean": values.mean() / 2} | row)
    return pd.DataFrame(rows)


def ranked(scores, **settings):
    return rank_models(table_of(scores), settings_of(*scores, **settings), BATCHES).set_index("model")


def write_card(path, *, context_px, **more):
    geometry = Geometry(stride_px=8, context_px=context_px)
    card = replace(CARD, geometry=geometry, normalization=dict(NORMALIZATION), **more)
    write_json(Path(path), card.to_dict())


def write_speed(batch, **measured):
    write_json(Path(paths.SPEED.format(model="a", batch=batch)), asdict(replace(SPEED, **measured)))


def test_scores_are_means_over_samples_with_their_spread():
    row = ranked({"a": {"1": (0.5, 0.7), "2": (0.9, 0.7)}}).loc["a"]
    assert row["dice_mean"] == pytest.approx(0.7)
    assert row["sd_dice_mean"] == pytest.approx(0.02**0.5)  # of 0.6 and 0.8, n - 1
    assert (row["min_dice_mean"], row["max_dice_mean"]) == pytest.approx((0.6, 0.8))
    assert (row["dice_background"], row["dice_object"]) == pytest.approx((0.7, 0.7))
    assert row["jaccard_mean"] == pytest.approx(0.35)
    assert (row["samples"], row["failed"]) == (2, 0)


def test_the_best_is_first_equals_share_a_rank_and_networks_without_scores_have_none():
    scores = {"none": {"1": None}, "low": {"1": (0.1, 0.1)}, "high": {"1": (0.5, 0.5)}, "too": {"1": (0.5, 0.5)}}
    ranking = ranked(scores)
    assert list(ranking.index) == ["high", "too", "low", "none"]
    assert ranking["rank"].tolist() == [1, 1, 3, pd.NA]
    assert (ranking.loc["none", "samples"], ranking.loc["none", "failed"]) == (0, 1)


def test_a_network_does_not_rank_higher_for_failing_on_a_difficult_sample():
    ranking = ranked({"failing": {"easy": (0.8, 0.8), "hard": None}, "sound": {"easy": (0.9, 0.9), "hard": (0.1, 0.1)}})
    assert ranking["dice_mean"].to_dict() == pytest.approx({"sound": 0.9, "failing": 0.8})
    assert ranking["samples"].tolist() == [1, 1]
    assert ranking["failed"].to_dict() == {"sound": 0, "failing": 1}


def test_networks_with_no_sample_in_common_are_not_ranked():
    ranking = ranked({"a": {"1": (0.8, 0.8), "2": None}, "b": {"1": None, "2": (0.9, 0.9)}})
    assert ranking["rank"].isna().all()
    assert ranking["dice_mean"].isna().all()
    assert ranking["samples"].tolist() == [0, 0]


def test_a_network_without_scores_takes_no_sample_from_the_others():
    assert shared_samples(table_of({"a": {"1": (1, 1), "2": (1, 1)}, "b": {"1": None, "2": None}})) == {"1", "2"}


def test_an_absent_class_is_left_out_of_its_mean():
    row = ranked({"a": {"1": (0.5, NAN), "2": (0.7, 0.9)}}).loc["a"]
    assert row["dice_object"] == pytest.approx(0.9)
    assert row["dice_mean"] == pytest.approx((0.5 + 0.8) / 2)


def test_unknown_values_are_empty_in_the_file_and_no_column_is_missing(tmp_path):
    write_card(paths.CARD.format(model="a"), context_px=44, parameters=1234)
    rank_models(table_of({"a": {"1": (0.5, 0.5)}, "b": {"1": None}}), settings_of("a", "b"), BATCHES).to_csv(
        tmp_path / "comparison.csv", index=False
    )
    header, first, last = (tmp_path / "comparison.csv").read_text().splitlines()
    assert header == (
        "rank,model,architecture,samples,failed,dice_mean,sd_dice_mean,min_dice_mean,max_dice_mean,dice_background,"
        "dice_object,jaccard_mean,train_minutes,predict_mpx_per_s,tiling,tile_mismatch,parameters,gflops_per_mpx,"
        "stride_px,context_px,paper"
    )
    assert first == "1,a,unet,1,0,0.5,,0.5,0.5,0.5,0.5,0.25,,,exact,,1234,,8,44,"
    assert last == ",b,,0,1" + 16 * ","


def test_a_class_may_be_named_like_a_measure():
    table = table_of({"a": {"1": (0.2, 0.6), "2": (0.4, 0.6)}})
    renamed = table.rename(columns={"dice_background": "dice_min", "dice_object": "dice_sd"})
    row = rank_models(renamed, settings_of("a", classes=["min", "sd"]), BATCHES).loc[0]
    assert (row["dice_min"], row["min_dice_mean"]) == pytest.approx((0.3, 0.4))


def test_the_time_of_a_training_is_that_of_its_last_record():
    history = Path(paths.HISTORY.format(model="a"))
    history.parent.mkdir(parents=True)
    history.write_text("step,elapsed_s\n50,40.0\n100,90.0\n")
    assert ranked(TWO_BATCHES).loc["a", "train_minutes"] == 1.5
    checkpoint = settings_of(models={"a": {"checkpoint": "x/model.safetensors"}})
    assert rank_models(table_of(TWO_BATCHES), checkpoint, BATCHES)["train_minutes"].isna().all()


def test_the_speed_is_that_of_all_batches_that_are_there():
    write_speed("plate", pixels=2_000_000, wall_s=1.0)
    write_speed("alone", pixels=1_000_000, wall_s=2.0)
    write_speed("removed", pixels=1, wall_s=1000.0)
    row = ranked(TWO_BATCHES).loc["a"]
    assert row["predict_mpx_per_s"] == 1.0
    assert pd.isna(row["tile_mismatch"])


def test_the_tile_mismatch_is_a_share_of_all_pixels_compared():
    write_card(paths.CARD.format(model="a"), context_px=None)
    write_speed("plate", pixels=1, wall_s=1.0, differing_px=3, compared_px=100)
    write_speed("alone", pixels=1, wall_s=1.0, differing_px=0, compared_px=200)
    row = ranked(TWO_BATCHES).loc["a"]
    assert (row["tiling"], row["tile_mismatch"]) == ("blended", 0.01)
    assert pd.isna(row["context_px"])


def test_the_card_of_a_checkpoint_is_beside_it():
    write_card("elsewhere/model.json", context_px=44, gflops_per_mpx=12.5, paper="Ronneberger 2015")
    models = {"a": {"checkpoint": "elsewhere/model.safetensors"}}
    row = rank_models(table_of(TWO_BATCHES), settings_of(models=models), BATCHES).loc[0]
    expected = ["unet", 8, 12.5, "Ronneberger 2015"]
    assert row[["architecture", "stride_px", "gflops_per_mpx", "paper"]].tolist() == expected


def test_damaged_files_leave_their_cells_empty():
    for path in (paths.CARD.format(model="a"), paths.SPEED.format(model="a", batch="alone")):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("{}")
    row = ranked(TWO_BATCHES).loc["a"]
    assert row[["architecture", "tiling", "predict_mpx_per_s"]].isna().all()
    assert row["rank"] == 1


def test_ensembles_are_ranked_beside_models():
    ensembles = {"both": {"members": ["a"]}}
    ranking = ranked({"a": {"1": (0.5, 0.5)}}, ensembles=ensembles)
    assert list(ranking.index) == ["a", "both"]
