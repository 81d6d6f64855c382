"""Networks are ranked by their foreground Dice on their common samples; unknown values are empty, never 0."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from models.base.geometry import Geometry
from pipeline.base import paths
from pipeline.base.files import write_json
from pipeline.report.outcome import Outcome
from pipeline.report.page_content import ranking_table
from pipeline.report.tables.comparison import rank_models, shared_samples
from pipeline.settings.schema import Settings
from pipeline.slides.intensity import NORMALIZATION
from tests.support.networks import CARD

NAN = float("nan")
pytestmark = pytest.mark.usefixtures("in_folder")
TWO_SAMPLES = {"a": {"plate/1": (1, 1), "plate/2": (1, 1), "alone": None}}


def settings_of(*names, **settings):
    return Settings.model_validate({"models": {name: {} for name in names}} | settings)


def table_of(scores):
    """A table of metrics from (background, object) Dice by model and sample; None is a failed sample."""
    rows = []
    for model, samples in scores.items():
        for sample, dice in samples.items():
            values = pd.Series(dice if dice is not None else (NAN, NAN), dtype=float)
            row = {
                "foreground_dice": values[1],
                "dice_mean": values.mean(),
                "dice_background": values[0],
                "dice_object": values[1],
            }
            status = "failed" if dice is None else "done"
            rows.append({"sample": sample, "model": model, "status": status, "jaccard_mean": values.mean() / 2} | row)
    return pd.DataFrame(rows)


def ranked(scores, found=(), **settings):
    return rank_models(table_of(scores), settings_of(*scores, **settings), found).set_index("model")


def write_card(path, *, context_px, **more):
    geometry = Geometry(stride_px=8, context_px=context_px)
    card = replace(CARD, geometry=geometry, normalization=dict(NORMALIZATION), **more)
    write_json(Path(path), card.to_dict())


def predicted(sample, *, model="a", **measured):
    nothing = dict.fromkeys(("differing_px", "compared_px", "network_s", "reading_s", "writing_s"), 0)
    return Outcome(sample=sample, model=model, slide="x.tif", found={"predict": nothing | measured})


def test_scores_are_means_over_samples_with_their_spread():
    row = ranked({"a": {"1": (0.9, 0.6), "2": (0.9, 0.8)}}).loc["a"]
    assert row["foreground_dice"] == pytest.approx(0.7)
    assert row["sd_foreground_dice"] == pytest.approx(0.02**0.5)  # of 0.6 and 0.8, n - 1
    assert (row["min_foreground_dice"], row["max_foreground_dice"]) == pytest.approx((0.6, 0.8))
    assert row[["dice_mean", "dice_background", "dice_object"]].tolist() == pytest.approx([0.8, 0.9, 0.7])
    assert row["jaccard_mean"] == pytest.approx(0.4)
    assert (row["samples"], row["failed"]) == (2, 0)


def test_the_best_is_first_equals_share_a_rank_and_networks_without_scores_have_none():
    scores = {"none": {"1": None}, "low": {"1": (0.1, 0.1)}, "high": {"1": (0.5, 0.5)}, "too": {"1": (0.5, 0.5)}}
    ranking = ranked(scores)
    assert list(ranking.index) == ["high", "too", "low", "none"]
    assert ranking["rank"].tolist() == [1, 1, 3, pd.NA]
    assert (ranking.loc["none", "samples"], ranking.loc["none", "failed"]) == (0, 1)


def test_the_background_ranks_nothing():
    ranking = ranked({"empty": {"1": (0.98, 0.1)}, "good": {"1": (0.5, 0.5)}})
    assert ranking["rank"].to_dict() == {"good": 1, "empty": 2}
    assert ranking["dice_mean"].to_dict() == pytest.approx({"good": 0.5, "empty": 0.54})


def test_networks_that_differ_by_rounding_share_a_rank():
    ranking = ranked({"a": {"1": (0.3, 0.3)}, "b": {"1": (0.1 + 0.2, 0.1 + 0.2)}})
    assert ranking["rank"].to_dict() == {"a": 1, "b": 1}


def test_a_network_does_not_rank_higher_for_failing_on_a_difficult_sample():
    ranking = ranked({"failing": {"easy": (0.8, 0.8), "hard": None}, "sound": {"easy": (0.9, 0.9), "hard": (0.1, 0.1)}})
    assert ranking["foreground_dice"].to_dict() == pytest.approx({"sound": 0.9, "failing": 0.8})
    assert ranking["samples"].tolist() == [1, 1]
    assert ranking["failed"].to_dict() == {"sound": 0, "failing": 1}


def test_networks_with_no_sample_in_common_are_not_ranked():
    ranking = ranked({"a": {"1": (0.8, 0.8), "2": None}, "b": {"1": None, "2": (0.9, 0.9)}})
    assert ranking["rank"].isna().all()
    assert ranking["foreground_dice"].isna().all()
    assert ranking["samples"].tolist() == [0, 0]


def test_a_network_without_scores_takes_no_sample_from_the_others():
    assert shared_samples(table_of({"a": {"1": (1, 1), "2": (1, 1)}, "b": {"1": None, "2": None}})) == {"1", "2"}


def test_a_sample_without_foreground_has_no_score():
    row = ranked({"a": {"1": (0.5, NAN), "2": (0.7, 0.9)}}).loc["a"]
    assert (row["samples"], row["foreground_dice"], row["dice_object"]) == (1, pytest.approx(0.9), pytest.approx(0.9))
    assert row["dice_mean"] == pytest.approx(0.8)


def test_unknown_values_are_empty_in_the_file_and_no_column_is_missing(tmp_path):
    write_card(paths.CARD.format(model="a"), context_px=44, parameters=1234)
    rank_models(table_of({"a": {"1": (0.5, 0.5)}, "b": {"1": None}}), settings_of("a", "b"), []).to_csv(
        tmp_path / "comparison.csv", index=False
    )
    header, first, last = (tmp_path / "comparison.csv").read_text().splitlines()
    assert header == (
        "rank,model,architecture,samples,failed,foreground_dice,sd_foreground_dice,min_foreground_dice,"
        "max_foreground_dice,dice_mean,dice_background,dice_object,jaccard_mean,train_minutes,predict_mpx_per_s,network_share,"
        "reading_share,writing_share,tiling,tile_mismatch,parameters,gflops_per_mpx,stride_px,context_px,paper"
    )
    assert first == "1,a,unet,1,0,0.5,,0.5,0.5,0.5,0.5,0.5,0.25,,,,,,exact,,1234,,8,44,"
    assert last == ",b,,0,1" + 20 * ","


def test_a_class_may_be_named_like_a_measure():
    table = table_of({"a": {"1": (0.2, 0.6), "2": (0.4, 0.6)}})
    renamed = table.rename(columns={"dice_background": "dice_min", "dice_object": "dice_foreground"})
    row = rank_models(renamed, settings_of("a", classes=["min", "foreground"]), []).loc[0]
    assert (row["dice_min"], row["min_foreground_dice"], row["dice_foreground"]) == pytest.approx((0.3, 0.6, 0.6))


def test_the_time_of_a_training_is_that_of_its_last_record():
    history = Path(paths.HISTORY.format(model="a"))
    history.parent.mkdir(parents=True)
    history.write_text("step,elapsed_s\n50,40.0\n100,90.0\n")
    assert ranked(TWO_SAMPLES).loc["a", "train_minutes"] == 1.5
    checkpoint = settings_of(models={"a": {"checkpoint": "x/model.safetensors"}})
    assert rank_models(table_of(TWO_SAMPLES), checkpoint, [])["train_minutes"].isna().all()


def test_the_speed_is_that_of_all_samples_that_were_predicted():
    found = [
        predicted("plate/1", pixels=2_000_000, wall_s=1.0, network_s=0.25, reading_s=0.75),
        predicted("alone", pixels=1_000_000, wall_s=2.0, network_s=0.5, reading_s=0.75, writing_s=0.75),
        predicted("alone", model="b", pixels=1, wall_s=1000.0),
        Outcome(sample="plate/2", model="a", slide="y.tif"),
    ]
    row = ranked(TWO_SAMPLES, found).loc["a"]
    assert row["predict_mpx_per_s"] == 1.0
    assert row[["network_share", "reading_share", "writing_share"]].tolist() == [0.25, 0.5, 0.25]
    assert pd.isna(row["tile_mismatch"])


@pytest.mark.parametrize(
    ("reading_s", "writing_s", "advice"),
    [
        (0.05, 0.1, ""),
        (0.4, 0.2, " a waited 40% of it for pixels: give predict more threads, "),
        (0.2, 0.3, " a waited 30% of it for writing: put the project on a local disk, "),
    ],
)
def test_the_page_says_what_to_change_if_a_network_waited(reading_s, writing_s, advice):
    found = [predicted("alone", pixels=1, wall_s=1.0, reading_s=reading_s, writing_s=writing_s)]
    ranking = rank_models(table_of(TWO_SAMPLES), settings_of("a"), found)
    caption = ranking_table(ranking).caption
    assert (advice in caption) and (" waited " in caption.partition("in which it waited.")[2]) == bool(advice)


def test_the_tile_mismatch_is_a_share_of_all_pixels_compared():
    write_card(paths.CARD.format(model="a"), context_px=None)
    found = [
        predicted("plate/1", pixels=1, wall_s=1.0, differing_px=3, compared_px=100),
        predicted("alone", pixels=1, wall_s=1.0, differing_px=0, compared_px=200),
    ]
    row = ranked(TWO_SAMPLES, found).loc["a"]
    assert (row["tiling"], row["tile_mismatch"]) == ("blended", 0.01)
    assert pd.isna(row["context_px"])


def test_the_card_of_a_checkpoint_is_beside_it():
    write_card("elsewhere/model.json", context_px=44, gflops_per_mpx=12.5, paper="Ronneberger 2015")
    models = {"a": {"checkpoint": "elsewhere/model.safetensors"}}
    row = rank_models(table_of(TWO_SAMPLES), settings_of(models=models), []).loc[0]
    expected = ["unet", 8, 12.5, "Ronneberger 2015"]
    assert row[["architecture", "stride_px", "gflops_per_mpx", "paper"]].tolist() == expected


def test_a_damaged_card_leaves_its_cells_empty():
    card = Path(paths.CARD.format(model="a"))
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    row = ranked(TWO_SAMPLES).loc["a"]
    assert row[["architecture", "tiling", "predict_mpx_per_s"]].isna().all()
    assert row["rank"] == 1


def test_ensembles_are_ranked_beside_models():
    ensembles = {"both": {"members": ["a"]}}
    ranking = ranked({"a": {"1": (0.5, 0.5)}}, ensembles=ensembles)
    assert list(ranking.index) == ["a", "both"]
