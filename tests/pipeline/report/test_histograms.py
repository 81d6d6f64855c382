"""Histograms of the page: bars are counts of all objects, or of some that are spread over all tables."""

import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from pipeline.report import histograms
from pipeline.report.outcome import Outcome

CLASSES = ["background", "cell", "NA"]


def outcome(path, table, name="a", **state):
    table.to_csv(path, index=False)
    found = {"objects": {"objects": len(table)}}
    return Outcome(sample=name, model="unet", slide="", objects_table=str(path), found=found, **state)


def table_of(generator, count, **columns):
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "class": generator.choice(["cell", "NA"], count),
            "area_px": generator.integers(1, 500, count),
            "area_um2": np.nan,
            "mean_intensity_a,b": generator.normal(100, 20, count),
            "edge_mean_intensity_0": 1.0,
        }
        | columns
    )


def heights_of(figure):
    """The heights of the bars of each class, as they are drawn."""
    paths = ElementTree.fromstring(figure.svg).iter("{http://www.w3.org/2000/svg}path")
    return [[120 - float(y) for y in re.findall(r"V([\d.]+)h", path.get("d"))] for path in paths]


def test_bars_are_the_counts_of_each_class(tmp_path, generator):
    table = table_of(generator, 1000)
    found = [outcome(tmp_path / "a.csv", table[:300]), outcome(tmp_path / "b.csv", table[300:], "b")]
    failed = outcome(tmp_path / "c.csv", table, "c", stage="evaluate", error="x")
    figures = histograms.histograms([*found, failed], "unet", CLASSES)
    assert [figure.title for figure in figures] == ["Area px", "a,b: Mean"]
    for figure, name in zip(figures, ["area_px", "mean_intensity_a,b"], strict=True):
        low, high = np.percentile(table[name], [0.5, 99.5])
        own = [np.clip(table.loc[table["class"] == label, name], low, high) for label in ("cell", "NA")]
        counts = np.array([np.histogram(values, 40, (low, high))[0] for values in own])
        np.testing.assert_allclose(heights_of(figure), counts / counts.max() * 120, atol=0.051)
        assert (
            f"{name} of 1,000 objects; median: cell {own[0].median():.4g}, NA {own[1].median():.4g}." in figure.caption
        )
        assert len(figure.svg) < 2200


def test_of_many_objects_some_are_drawn_from_all_tables(tmp_path, generator, monkeypatch):
    monkeypatch.setattr(histograms, "_MOST_BYTES", 40_000)
    first, second = (table_of(generator, 5000, area_px=np.arange(5000) + start) for start in (0, 5000))
    found = [outcome(tmp_path / "a.csv", first), outcome(tmp_path / "b.csv", second, "b")]
    figure, _ = histograms.histograms(found, "unet", CLASSES)
    shown = int(re.search(r"([\d,]+) of 10,000 objects", figure.caption)[1].replace(",", ""))
    assert 300 < shown < 2000
    together = np.sum(heights_of(figure), axis=0)
    assert (together > 0).sum() > 25  # not only the first rows


def test_of_many_tables_some_are_read_evenly(tmp_path, generator, monkeypatch):
    monkeypatch.setattr(histograms, "_MOST_TABLES", 3)
    tables = [table_of(generator, 10, area_px=np.full(10, number)) for number in range(9)]
    found = [outcome(tmp_path / f"{number}.csv", table, str(number)) for number, table in enumerate(tables)]
    figure, _ = histograms.histograms(found, "unet", CLASSES)
    assert "30 of 90 objects" in figure.caption
    assert np.count_nonzero(np.sum(heights_of(figure), axis=0)) == 3


def test_no_objects_no_figures_and_equal_values_one_bar(tmp_path, generator):
    assert histograms.histograms([], "unet", CLASSES) == []
    empty = outcome(tmp_path / "a.csv", table_of(generator, 0))
    assert histograms.histograms([empty], "unet", CLASSES) == []
    same = outcome(tmp_path / "b.csv", table_of(generator, 3, area_px=[5, 5, 5]), "b")
    figure, _ = histograms.histograms([empty, same], "unet", CLASSES)
    assert np.count_nonzero(np.sum(heights_of(figure), axis=0)) == 1
