"""The table of the folds, and their scores in the card of the network that they become."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.base import paths
from pipeline.project.jobs.ledger import network_ledger_path, write_ledger
from pipeline.project.stage_settings import stage_config
from pipeline.report.tables.folds import folds_columns, folds_table
from pipeline.settings.schema import parse_settings
from pipeline.stages.combine import cross_validation
from pipeline.training.state import TrainingState
from tests.support.commands import run_command
from tests.support.jobs import failure_of_network
from tests.support.networks import CARD, network_with_batch_stats, write_network
from tests.support.slide_files import touch

SETTINGS = parse_settings({"models": {"a": {"folds": 3}, "b": {}, "c": {"folds": 2}}}, source="")
DICE = {1: [0.5, 0.7], 2: [0.9], 3: [0.6, np.nan, 0.9]}


def write_validation(folder, model, scores):
    for fold, dice in scores.items():
        path = folder / f"results/validation/{model}/fold{fold}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"sample": f"{fold}{number}", "group": f"{fold}", "foreground_dice": value, "pixels": 10}
            for number, value in enumerate(dice)
        ]
        pd.DataFrame(rows).to_csv(path, index=False)


def test_a_table_by_hand(in_folder):
    write_validation(in_folder, "a", DICE)
    table = folds_table(SETTINGS).set_index("fold")
    assert table["model"].unique().tolist() == ["a"]  # a fold of c is missing
    assert table["images"].dropna().to_dict() == {"1": 2, "2": 1, "3": 3, "mean": 6}
    assert table["groups"].dropna().to_dict() == {"1": 1, "2": 1, "3": 1, "mean": 3}
    expected = {"1": 0.6, "2": 0.9, "3": 0.75, "mean": 0.75, "sd": 0.15, "min": 0.6, "max": 0.9}
    assert table["foreground_dice"].to_dict() == pytest.approx(expected)
    assert not {"pixels", "share_object", "area_um2_object", "median_area_um2"} & set(table)  # these are no scores
    assert table["dice_object"].isna().all()
    assert list(folds_table(SETTINGS).columns) == [column.name for column in folds_columns(SETTINGS.classes)]


def test_the_file_that_a_failed_fold_left_is_no_result(in_folder):
    write_validation(in_folder, "a", DICE)
    with write_ledger(network_ledger_path("validate", "a/fold2"), stage="validate", model="a/fold2"):
        pass  # a ledger without an entry: the training failed
    assert folds_table(SETTINGS).empty


def test_without_folds_the_table_has_its_columns_and_no_row(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folds_table(SETTINGS).empty
    assert "foreground_dice" in folds_table(SETTINGS)


def card(dice, *images):
    return replace(CARD, metrics={"step": 4, "foreground_dice": dice}, validation=list(images))


def test_the_card_of_all_folds_has_the_mean_and_spread_of_their_dice():
    metrics, images = cross_validation([card(0.5, "b", "c"), card(0.9, "a")])
    assert metrics == pytest.approx({"foreground_dice": 0.7, "sd_foreground_dice": np.sqrt(0.08)})
    assert images == ["a", "b", "c"]
    metrics, _ = cross_validation([card(0.5, "b"), card(None, "a")])
    assert metrics == pytest.approx({"foreground_dice": 0.5, "sd_foreground_dice": np.nan}, nan_ok=True)


@pytest.mark.parametrize(("only_better", "kept"), [(True, 1), (False, 2)])
def test_the_held_back_images_choose_weights_only_where_they_are_asked_to(only_better, kept):
    network = network_with_batch_stats(width=2, depth=1)
    weight, state = next(network.parameters()), TrainingState()
    for step, dice in ((1, 0.9), (2, 0.1)):
        torch.nn.init.constant_(weight, step)
        state.record(network, {"step": step, "foreground_dice": dice}, only_better=only_better)
    assert state.chosen["step"] == kept
    assert (next(iter(state.tensors["kept"].values())) == kept).all()


@pytest.mark.parametrize(("scores", "kept"), [([0.2, 0.2, 0.1], 1), ([0.0, np.nan, 0.0], 2), ([np.nan] * 3, 3)])
def test_the_foreground_chooses_the_weights_and_without_one_the_last_are_kept(scores, kept):
    network, state = network_with_batch_stats(width=2, depth=1), TrainingState()
    for step, score in enumerate(scores, start=1):
        state.record(network, {"step": step, "foreground_dice": score, "dice_mean": step / 10}, only_better=True)
    assert state.chosen["step"] == kept


def test_a_network_that_has_seen_the_held_back_images_is_refused(in_folder):
    weights = write_network(Path(paths.NETWORK.format(model="a/fold1")).parent, width=2, depth=1)
    touch(in_folder, "images/a.tif", "images/b.tif", "labels/a.tif", "labels/b.tif")
    config = stage_config(parse_settings({"models": {"a": {"folds": 2}}}, source=""), "validate", "a/fold1")
    places = {"images": "images", "labels": "labels"}
    assert run_command("validate", model="a/fold1", **places, config=config, threads=1, memory_mb=1000) == 0
    failure = failure_of_network("validate", "a/fold1")
    assert (failure.stage, failure.error_class) == ("validate", "SlidemillError")
    assert failure.message.startswith(f"{weights}: trained without 0 images, not the 1 held back now")
    assert not Path(paths.VALIDATION.format(model="a/fold1")).exists()


@pytest.mark.parametrize("cards", [[card(0.5, "a")], [card(0.5, "a"), card(0.9, "a")], [card(0.5, "a"), card(0.9)]])
def test_networks_that_were_not_cross_validated_have_no_common_score(cards):
    assert cross_validation(cards) == ({}, [])
