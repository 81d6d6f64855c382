"""Means with intervals and paired tests, by hand and against plain resampling of groups."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pipeline.report.cohort import COHORT_COLUMNS, PAIRED_COLUMNS, pair, summarize


def table_of(**scores):
    """A row per network and sample; scores of a network by sample name."""
    rows = [
        {"model": model, "sample": sample, "dice_mean": value, "dice_cell": value, "objects_f1_50": value}
        for model, samples in scores.items()
        for sample, value in samples.items()
    ]
    others = ["jaccard_mean", "jaccard_cell", "surface_dice_mean", "surface_dice_cell"]
    return pd.DataFrame(rows).assign(**dict.fromkeys([*others, "aggregated_jaccard", "adapted_rand_error"], np.nan))


def row_of(table, groups, measure="dice", label="mean"):
    summary = summarize(table, ["cell"], groups)
    assert list(summary) == COHORT_COLUMNS
    return summary[(summary["measure"] == measure) & (summary["class"] == label)].iloc[0]


def test_by_hand():
    row = row_of(table_of(unet={"a": 0.2, "b": 0.4, "c": 0.9, "d": np.nan}), {})
    assert (row["samples"], row["groups"]) == (3, 3)
    assert (row["mean"], row["median"]) == (pytest.approx(0.5), pytest.approx(0.4))
    assert 0.2 <= row["low"] < 0.5 < row["high"] <= 0.9


def test_the_interval_is_that_of_plain_resampling():
    generator = np.random.default_rng(3)
    scores = generator.beta(8, 2, 40)
    row = row_of(table_of(unet={str(number): score for number, score in enumerate(scores)}), {})
    drawn = [generator.choice(scores, 40).mean() for _ in range(9999)]
    assert (row["low"], row["high"]) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.003)


def test_the_interval_of_many_samples_is_that_of_their_few_groups():
    generator = np.random.default_rng(0)
    means = generator.normal(0.8, 0.05, 5)
    scores = {f"{group}{number}": mean for group, mean in zip("abcde", means, strict=True) for number in range(20)}
    alone = row_of(table_of(unet=scores), {})
    grouped = row_of(table_of(unet=scores), {sample: sample[0] for sample in scores})
    of_means = row_of(table_of(unet=dict(zip("abcde", means, strict=True))), {})
    assert (grouped["samples"], grouped["groups"]) == (100, 5)
    assert grouped[["mean", "low", "high"]].tolist() == pytest.approx(of_means[["mean", "low", "high"]].tolist())
    assert grouped["high"] - grouped["low"] > 3 * (alone["high"] - alone["low"])


def test_one_group_has_no_interval():
    row = row_of(table_of(unet={"a": 0.5, "b": 0.7}), {"a": "mouse", "b": "mouse"})
    assert np.isnan([row["low"], row["high"]]).all()


def test_pairs_are_compared_on_the_samples_of_both():
    first = dict(zip("abcdefgh", np.linspace(0.6, 0.9, 8), strict=True))
    second = {sample: score - 0.01 * (number + 1) for number, (sample, score) in enumerate(first.items())}
    table = table_of(unet=first | {"z": 1.0}, fcn=second)
    pairs = pair(table, {})
    assert list(pairs) == PAIRED_COLUMNS
    row = pairs[pairs["measure"] == "dice_mean"].iloc[0]
    assert (row["model"], row["other"], row["samples"]) == ("unet", "fcn", 8)
    assert row["median_difference"] == pytest.approx(0.045)
    assert row["p_value"] == pytest.approx(2 / 2**8)  # all eight differences have one sign
    grouped = pair(table, dict.fromkeys("abcd", "x") | dict.fromkeys("efgh", "y")).iloc[0]
    assert grouped["groups"] == 2
    assert grouped["p_value"] == pytest.approx(scipy.stats.wilcoxon([0.025, 0.065]).pvalue)


def test_equal_networks_and_networks_without_common_samples_have_no_p_value():
    same = {"a": 0.5, "b": 0.6}
    assert pair(table_of(unet=same, fcn=same), {})["p_value"].isna().all()
    assert pair(table_of(unet={"a": 0.5}, fcn={"b": 0.6}), {}).empty
