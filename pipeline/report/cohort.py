"""Scores over all samples: means with confidence intervals, and tests between networks.

Samples of one group (an animal, a patient, a field) are not independent, so groups are resampled, not samples.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from numpy.typing import NDArray

MEASURES = ("dice", "jaccard", "surface_dice", "objects_f1_50", "aggregated_jaccard", "adapted_rand_error")
COHORT_COLUMNS = ["model", "measure", "class", "samples", "groups", "mean", "median", "low", "high"]
PAIRED_COLUMNS = ["measure", "model", "other", "samples", "groups", "median_difference", "p_value"]

_PER_CLASS = ("dice", "jaccard", "surface_dice")
_RESAMPLES = 9999


def summarize(table: pd.DataFrame, classes: list[str], groups: dict[str, str]) -> pd.DataFrame:
    """Return a row per network, measure and class (and the mean over classes), :data:`COHORT_COLUMNS`.

    ``low`` and ``high`` bound the mean with 95 % confidence: a percentile bootstrap over groups (Efron 1979,
    doi:10.1214/aos/1176344552; Field, Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x); empty with fewer than two.

    Parameters
    ----------
    table : DataFrame
        A row per sample and network, with sample, model and the metrics.
    groups : dict of str
        Group by sample; a sample without one is its own group.
    """
    rows = []
    for model, part in table.groupby("model", sort=False):
        for measure in MEASURES:
            for label in ("mean", *classes) if measure in _PER_CLASS else ("",):
                scores = part.set_index("sample")[f"{measure}_{label}" if label else measure].dropna()
                if len(scores):
                    rows.append({"model": model, "measure": measure, "class": label} | _summary(scores, groups))
    return pd.DataFrame(rows, columns=COHORT_COLUMNS)


def pair(table: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """Compare every two networks on the samples that both have a score for, :data:`PAIRED_COLUMNS`.

    ``p_value`` is that of Wilcoxon's signed-rank test, two-sided, on the mean difference of each group (Wilcoxon 1945,
    doi:10.2307/3001968); empty where no group differs.
    """
    rows = []
    for measure in ("dice_mean", "objects_f1_50"):
        scores = {model: part.set_index("sample")[measure] for model, part in table.groupby("model", sort=False)}
        for model, other in combinations(scores, 2):
            difference = (scores[model] - scores[other]).dropna()
            if difference.empty:
                continue
            by_group = difference.groupby(_group_of(difference, groups)).mean()
            differs = bool((by_group != 0).any())
            rows.append(
                {
                    "measure": measure,
                    "model": model,
                    "other": other,
                    "samples": len(difference),
                    "groups": len(by_group),
                    "median_difference": difference.median(),
                    "p_value": float(scipy.stats.wilcoxon(by_group).pvalue) if differs else np.nan,
                }
            )
    return pd.DataFrame(rows, columns=PAIRED_COLUMNS)


def _summary(scores: pd.Series[Any], groups: dict[str, str]) -> dict[str, Any]:
    by_group = scores.groupby(_group_of(scores, groups)).agg(["sum", "count"])
    low, high = _interval(by_group["sum"].to_numpy(), by_group["count"].to_numpy())
    counts = {"samples": len(scores), "groups": len(by_group)}
    return counts | {"mean": scores.mean(), "median": scores.median(), "low": low, "high": high}


def _group_of(scores: pd.Series[Any], groups: dict[str, str]) -> list[str]:
    # The tab keeps the name of a sample from being that of a group.
    return [groups.get(str(sample), f"\t{sample}") for sample in scores.index]


def _interval(sums: NDArray[Any], counts: NDArray[Any]) -> tuple[float, float]:
    if len(sums) < 2:
        return float("nan"), float("nan")
    found = scipy.stats.bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
