"""Scores over all samples: means with confidence intervals, and tests between networks.

Samples of one group (an animal, a patient, a field) are not independent, so a group counts once, with the mean over its
samples, in every number here.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy  # which loads `stats` where it is used: half a second that a report of one network saves
from numpy.typing import NDArray
from scipy.special import stdtrit

from pipeline.metrics.names import HEADLINE

MEASURES = (HEADLINE, "dice", "jaccard", "surface_dice", "objects_f1_50", "aggregated_jaccard", "adapted_rand_error")
# Rows of scores have no region, of paired ones no class either.
COHORT_COLUMNS = ["model", "measure", "class", "region", "samples", "groups", "mean", "median", "low", "high"]
PAIRED_COLUMNS = [
    *("measure", "class", "model", "region", "other", "other_region"),
    *("samples", "groups", "median_difference", "p_value"),
]
DECIMALS = 12  # of a score; what differs beyond them differs by rounding alone, and is equal

_PER_CLASS = ("dice", "jaccard", "surface_dice")


def summarize(table: pd.DataFrame, classes: list[str], groups: dict[str, str]) -> pd.DataFrame:
    """Return a row per network, measure and class (and the mean over classes), :data:`COHORT_COLUMNS`.

    ``mean`` and ``median`` are those of the groups; ``low`` and ``high`` are the :func:`mean_interval`, within 0 to 1
    as every measure is.

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
                    named = {"model": model, "measure": measure, "class": label, "region": ""}
                    rows.append(named | describe(scores, groups))
    return pd.DataFrame(rows, columns=COHORT_COLUMNS)


def pair(table: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """Compare every two networks on the samples that both have a score for, :data:`PAIRED_COLUMNS`.

    ``median_difference`` and ``p_value`` are those of the differences of the groups. The test is Wilcoxon's signed-rank
    test, two-sided (Wilcoxon 1945, doi:10.2307/3001968); its p is empty where no group differs.
    """
    rows = []
    for measure in (HEADLINE, "objects_f1_50"):
        scores = {model: part.set_index("sample")[measure] for model, part in table.groupby("model", sort=False)}
        for model, other in combinations(scores, 2):
            difference = (scores[model] - scores[other]).dropna()
            if difference.empty:
                continue
            sides = {"model": model, "region": "", "other": other, "other_region": ""}
            rows.append({"measure": measure, "class": ""} | sides | compare(difference, groups))
    return pd.DataFrame(rows, columns=PAIRED_COLUMNS)


def mean_interval(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % confidence interval of the mean by Student's t (1908, doi:10.1093/biomet/6.1.1).

    Parameters
    ----------
    values : (..., n) float64 array
        Independent values along the last axis.

    Returns
    -------
    low, high : (...) float64 arrays
        NaN for one value.
    """
    count = values.shape[-1]
    mean = values.mean(axis=-1)
    if count < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stdtrit(count - 1, 0.975) * values.std(axis=-1, ddof=1) / np.sqrt(count)
    return mean - half, mean + half


def describe(scores: pd.Series[Any], groups: dict[str, str], *, highest: float = 1.0) -> dict[str, Any]:
    """Return counts, mean, median and interval of scores by sample, which are from 0 to ``highest``."""
    by_group = _means_of_groups(scores, groups)
    low, high = (float(np.clip(end, 0, highest)) for end in mean_interval(by_group.to_numpy()))
    counts = {"samples": len(scores), "groups": len(by_group)}
    return counts | {"mean": by_group.mean(), "median": by_group.median(), "low": low, "high": high}


def compare(difference: pd.Series[Any], groups: dict[str, str]) -> dict[str, Any]:
    """Return counts, median and Wilcoxon's p of differences by sample."""
    by_group = _means_of_groups(difference, groups).round(DECIMALS)
    return {
        "samples": len(difference),
        "groups": len(by_group),
        "median_difference": by_group.median(),
        "p_value": float(scipy.stats.wilcoxon(by_group).pvalue) if by_group.any() else np.nan,
    }


def _means_of_groups(values: pd.Series[Any], groups: dict[str, str]) -> pd.Series[Any]:
    # The tab keeps the name of a sample from being that of a group.
    return values.groupby([groups.get(str(sample), f"\t{sample}") for sample in values.index]).mean()
