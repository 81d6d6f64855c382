"""Numbers of regions over all samples: means with intervals, and tests between regions and between networks.

The table of all regions goes in, rows of ``cohort.csv`` and ``paired.csv`` come out. A group counts once, as everywhere
in these tables (``cohort.py``).
"""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import pandas as pd

from pipeline.masks.measurements.dictionary import is_positive
from pipeline.report.tables.cohort import COHORT_COLUMNS, PAIRED_COLUMNS, compare, describe

_DENSITY, _FRACTION = "objects_per_mm2", "area_fraction"
_MOST_REGIONS = 20  # by the number of samples that have them; those that are drawn once have no spread
_KEYS = ["model", "region", "class"]


def region_numbers(table: Path, background: str) -> pd.DataFrame:
    """Return density, share of the area, and share of positive objects of each class, from ``regions.csv``.

    Returns
    -------
    DataFrame
        A row per sample, network, region, class and ``measure``, with its ``value``, in stacks the mean over planes;
        those without one are left out, and so are regions in fewer than two samples, and more than the 20 that most
        samples have.
    """
    names = [str(name) for name in pd.read_csv(table, nrows=0)]
    if _FRACTION not in names:  # no sample is done
        return pd.DataFrame(columns=["sample", *_KEYS, "measure", "value"])
    measures = [_DENSITY, _FRACTION, *(name for name in names if is_positive(name) and name.endswith("_share"))]
    texts = ["sample", *_KEYS]
    found = pd.read_csv(
        table,
        usecols=[*texts, *measures],
        dtype=dict.fromkeys(texts, str),
        keep_default_na=False,
        na_values={name: [""] for name in measures},
    )
    samples = found.groupby("region")["sample"].nunique()
    common = samples[samples > 1].sort_values(ascending=False, kind="stable").index[:_MOST_REGIONS]
    chosen = found[found["region"].isin(common) & (found["class"] != background)]
    if {"z", "t"} & set(names):
        chosen = chosen.groupby(texts, sort=False, as_index=False)[measures].mean()
    return chosen.melt(id_vars=texts, value_vars=measures, var_name="measure").dropna(subset="value")


def summarize_regions(numbers: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """Return a row per network, measure, class and region, as :func:`pipeline.report.tables.cohort.summarize`."""
    rows = []
    for (model, region, label, measure), part in numbers.groupby([*_KEYS, "measure"], sort=False):
        highest = math.inf if measure == _DENSITY else 1.0
        values = part.set_index("sample")["value"]
        named = {"model": model, "measure": measure, "class": label, "region": region}
        rows.append(named | describe(values, groups, highest=highest))
    return pd.DataFrame(rows, columns=COHORT_COLUMNS)


def pair_regions(numbers: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """Compare every two regions of a network, and every two networks in a region, on the samples that both have.

    The rows are those of :func:`pipeline.report.tables.cohort.pair`; p-values are not corrected for their number.
    """
    rows = []
    for (label, measure), part in numbers.groupby(["class", "measure"], sort=False):
        sides = [
            (side, own.set_index("sample")["value"]) for side, own in part.groupby(["model", "region"], sort=False)
        ]
        for ((model, region), own), ((other, other_region), others) in combinations(sides, 2):
            difference = (own - others).dropna()
            if (model == other or region == other_region) and len(difference) > 1:
                named = {"measure": measure, "class": label, "model": model, "region": region}
                named |= {"other": other, "other_region": other_region}
                rows.append(named | compare(difference, groups))
    return pd.DataFrame(rows, columns=PAIRED_COLUMNS)
