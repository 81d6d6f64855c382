"""Means with intervals and paired tests: by hand, and intervals that cover what they say in simulations."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pipeline.report.page_content import cohort_tables
from pipeline.report.tables.cohort import COHORT_COLUMNS, PAIRED_COLUMNS, mean_interval, pair, summarize


def table_of(**scores):
    """A row per network and sample; scores of a network by sample name."""
    rows = [
        {
            "model": model,
            "sample": sample,
            "foreground_dice": value,
            "dice_mean": value,
            "dice_cell": value,
            "objects_f1_50": value,
        }
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
    assert (row["low"], row["high"]) == pytest.approx((0, 1))  # 4.303 * 0.3606 / 3**0.5 = 0.896 to each side


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 12, 20])
@pytest.mark.parametrize(("skewed", "least"), [(False, 0.94), (True, 0.925)])
def test_an_interval_contains_the_true_mean_as_often_as_it_says(count, skewed, least):
    """Groups of 1 to 8 samples; 20,000 cohorts, so that the share is known to 0.2 %."""
    generator = np.random.default_rng(count)
    shape = (20_000, count)
    groups = generator.beta(8, 2, shape) if skewed else generator.normal(0.8, 0.05, shape)
    means = groups + generator.normal(0, 0.05, shape) / np.sqrt(generator.integers(1, 9, shape))
    low, high = mean_interval(means)
    assert least <= ((low <= 0.8) & (high >= 0.8)).mean() <= 0.965


def test_the_interval_is_that_of_scipy_and_stays_within_the_scores_that_are_possible():
    scores = [0.91, 0.94, 0.97, 0.95]
    row = row_of(table_of(unet=dict(zip("abcd", scores, strict=True))), {})
    expected = scipy.stats.t.interval(0.95, 3, np.mean(scores), scipy.stats.sem(scores))
    assert (row["low"], row["high"]) == pytest.approx(expected)
    two = row_of(table_of(unet={"a": 0.9, "b": 0.5}), {})
    assert (two["low"], two["high"]) == (0, 1)
    equal = row_of(table_of(unet={"a": 0.5, "b": 0.5}), {})
    assert (equal["low"], equal["high"]) == (0.5, 0.5)


def test_a_group_counts_once_however_many_samples_it_has():
    generator = np.random.default_rng(0)
    means = generator.normal(0.8, 0.05, 5)
    sizes = dict(zip("abcde", (1, 40, 3, 20, 2), strict=True))
    scores = {
        f"{group}{number}": mean
        for (group, size), mean in zip(sizes.items(), means, strict=True)
        for number in range(size)
    }
    grouped = row_of(table_of(unet=scores), {sample: sample[0] for sample in scores})
    of_means = row_of(table_of(unet=dict(zip("abcde", means, strict=True))), {})
    assert (grouped["samples"], grouped["groups"]) == (66, 5)
    numbers = ["mean", "median", "low", "high"]
    assert grouped[numbers].tolist() == pytest.approx(of_means[numbers].tolist())


def test_one_sample_is_no_cohort_on_the_page():
    for samples, titles in (({"a": 0.5}, []), ({"a": 0.5, "b": 0.6}, ["Cohort", "Models in pairs"])):
        table = table_of(unet=samples, fcn=samples)
        shown = cohort_tables(summarize(table, ["cell"], {}), pair(table, {}))
        assert [one.title for one in shown] == titles


def test_one_group_has_no_interval():
    row = row_of(table_of(unet={"a": 0.5, "b": 0.7}), {"a": "mouse", "b": "mouse"})
    assert np.isnan([row["low"], row["high"]]).all()


def test_pairs_are_compared_on_the_samples_of_both():
    first = dict(zip("abcdefgh", np.linspace(0.6, 0.9, 8), strict=True))
    second = {sample: score - 0.01 * (number + 1) for number, (sample, score) in enumerate(first.items())}
    table = table_of(unet=first | {"z": 1.0}, fcn=second)
    pairs = pair(table, {})
    assert list(pairs) == PAIRED_COLUMNS
    row = pairs[pairs["measure"] == "foreground_dice"].iloc[0]
    assert (row["model"], row["other"], row["samples"]) == ("unet", "fcn", 8)
    assert row["median_difference"] == pytest.approx(0.045)
    assert row["p_value"] == pytest.approx(2 / 2**8)  # all eight differences have one sign
    grouped = pair(table, dict.fromkeys("abcdef", "x") | dict.fromkeys("gh", "y")).iloc[0]
    assert grouped["groups"] == 2
    assert grouped["median_difference"] == pytest.approx((0.035 + 0.075) / 2)  # not that of the samples, 0.045
    assert grouped["p_value"] == pytest.approx(scipy.stats.wilcoxon([0.035, 0.075]).pvalue)


def test_differences_by_rounding_are_ties():
    """0.1 + 0.2 is not 0.3, and 0.3 - 0.2 not 0.2 - 0.1: neither is a difference of networks."""
    first = dict(zip("abcdefgh", [0.1 + 0.2, 0.3, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9], strict=True))
    second = dict(zip("abcdefgh", [0.3, 0.2, 0.1, 0.4, 0.5, 0.6, 0.7, 0.8], strict=True))
    row = pair(table_of(unet=first, fcn=second), {}).iloc[0]
    assert row["p_value"] == scipy.stats.wilcoxon([0, *[1] * 7]).pvalue
    equal = pair(table_of(unet={"a": 0.1 + 0.2, "b": 0.6}, fcn={"a": 0.3, "b": 0.6}), {}).iloc[0]
    assert np.isnan(equal["p_value"])
    assert equal["median_difference"] == 0


def test_equal_networks_and_networks_without_common_samples_have_no_p_value():
    same = {"a": 0.5, "b": 0.6}
    assert pair(table_of(unet=same, fcn=same), {})["p_value"].isna().all()
    assert pair(table_of(unet={"a": 0.5}, fcn={"b": 0.6}), {}).empty
