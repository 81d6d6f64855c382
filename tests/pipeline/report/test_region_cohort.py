"""Numbers of regions over samples: means and tests by hand, from a table of all regions."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from pipeline.report.page_content import region_cohort_tables
from pipeline.report.tables.cohort import COHORT_COLUMNS, PAIRED_COLUMNS
from pipeline.report.tables.region_cohort import pair_regions, region_numbers, summarize_regions

GROUPS = {"a": "one", "b": "one", "c": "two", "d": "three"}


def write(path, rows):
    """A table of regions: sample, model, region, density of cells."""
    table = pd.DataFrame(rows, columns=["sample", "model", "region", "objects_per_mm2"]).assign(
        **{"group": "", "class": "cell", "area_fraction": 0.25, "positive_NA_share": 0.5, "area_px_mean": 7.0}
    )
    background = table.assign(**{"class": "background", "objects_per_mm2": np.nan, "positive_NA_share": np.nan})
    pd.concat([background, table]).to_csv(path, index=False)
    return path


def numbers_of(tmp_path, rows):
    return region_numbers(write(tmp_path / "regions.csv", rows), "background")


def test_means_and_intervals_by_hand(tmp_path):
    densities = dict(zip("abcd", (100, 300, 1000, 600), strict=True))
    numbers = numbers_of(tmp_path, [(name, "unet", "NA", value) for name, value in densities.items()])
    found = summarize_regions(numbers, GROUPS)
    assert list(found) == COHORT_COLUMNS
    assert found["measure"].tolist() == ["objects_per_mm2", "area_fraction", "positive_NA_share"]
    density, fraction, _ = found.to_dict("records")
    assert (density["model"], density["class"], density["region"]) == ("unet", "cell", "NA")
    assert (density["samples"], density["groups"], density["mean"], density["median"]) == (4, 3, 600, 600)
    low, high = scipy.stats.t.interval(0.95, 2, 600, scipy.stats.sem([200, 1000, 600]))
    assert low < 0
    assert (density["low"], density["high"]) == pytest.approx((0, high))  # no density is below 0, but above 1
    assert (fraction["mean"], fraction["low"], fraction["high"]) == (0.25, 0.25, 0.25)


def test_two_regions_and_two_models_are_compared_on_common_samples(tmp_path):
    rows = [(name, "unet", "tumour", 10.0 * number) for number, name in enumerate("abcd", 1)]
    rows += [(name, "unet", "stroma", 1.0) for name in "bcd"] + [("d", "unet", "once", 1.0)]
    rows += [(name, "fcn", "tumour", 10.0 * number + 1) for number, name in enumerate("abcd", 1)]
    found = pair_regions(numbers_of(tmp_path, rows), GROUPS)
    assert list(found) == PAIRED_COLUMNS
    densities = found[found["measure"] == "objects_per_mm2"].set_index(["model", "region", "other", "other_region"])
    assert set(densities.index) == {("unet", "tumour", "unet", "stroma"), ("unet", "tumour", "fcn", "tumour")}
    regions = densities.loc[("unet", "tumour", "unet", "stroma")]
    assert (regions["samples"], regions["groups"], regions["median_difference"]) == (3, 3, 29)  # of 19, 29 and 39
    assert regions["p_value"] == pytest.approx(0.25)  # the least of three groups
    models = densities.loc[("unet", "tumour", "fcn", "tumour")]
    assert (models["samples"], models["groups"], models["median_difference"]) == (4, 3, -1)
    fractions = found[found["measure"] == "area_fraction"]
    assert fractions["median_difference"].tolist() == [0, 0]
    assert fractions["p_value"].isna().all()


def test_regions_of_one_sample_and_no_samples_have_no_rows(tmp_path):
    numbers = numbers_of(tmp_path, [("a", "unet", "x", 1.0), ("b", "unet", "y", 1.0)])
    assert numbers.empty
    (tmp_path / "regions.csv").write_text("sample,model,group\n")
    for empty in (numbers, region_numbers(tmp_path / "regions.csv", "background")):
        tables = summarize_regions(empty, {}), pair_regions(empty, {})
        assert [list(table) for table in tables] == [COHORT_COLUMNS, PAIRED_COLUMNS]
        assert all(table.empty for table in tables)
        assert not region_cohort_tables(*tables)


def test_an_unknown_density_has_no_row(tmp_path):
    numbers = numbers_of(tmp_path, [("a", "unet", "x", np.nan), ("b", "unet", "x", np.nan)])
    assert set(numbers["measure"]) == {"area_fraction", "positive_NA_share"}


def test_a_stack_counts_with_the_mean_of_its_planes(tmp_path):
    rows = [(name, "unet", "x", value) for name, value in (("a", 2.0), ("a", 4.0), ("b", 10.0))]
    path = write(tmp_path / "regions.csv", rows)
    pd.read_csv(path).assign(z=[0, 1, 0] * 2).to_csv(path, index=False)
    numbers = region_numbers(path, "background")
    densities = numbers[numbers["measure"] == "objects_per_mm2"]
    assert densities[["sample", "value"]].to_numpy().tolist() == [["a", 3.0], ["b", 10.0]]
