"""Histograms of the page: bars are counts of all objects, or of some that are spread over all tables.

Those of a sample come with a picture of which object is in which bar.
"""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

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


def columns_of(count, shape, generator, **columns):
    """Columns of objects that lie at different pixels of a slide."""
    at = generator.choice(shape[0] * shape[1], count, replace=False)
    row, column = np.unravel_index(at, shape)
    places = {"centroid_row_px": row.astype(float), "centroid_column_px": column.astype(float)}
    return places | {"area_px": generator.integers(1, 500, count), "area_um2": np.full(count, np.nan)} | columns


def marks_of(picture, number, measurements):
    """The numbers of the bars at the pixels of one measurement in a picture of marks."""
    grey = np.array(Image.open(io.BytesIO(picture)).convert("RGB"))[..., 0]
    return np.split(grey, measurements)[number] // 17


def bar_of(value, own):
    """The bar that counts a value, from 1, found by going through the bars."""
    width = (own["high"] - own["low"]) / len(own["counts"])
    ends = [own["low"] + (number + 1) * width for number in range(len(own["counts"]) - 1)]
    return 1 + sum(value >= end for end in ends)


def test_bars_of_a_sample_count_its_objects_and_the_picture_marks_each_at_its_place(generator):
    shape = (50, 80)
    columns = columns_of(300, shape, generator, circularity=generator.random(300))
    columns["circularity"][7] = np.nan
    found, picture = histograms.histograms_of_sample(columns, shape)
    assert list(found["histograms"]) == ["area_px", "circularity"]
    assert found["marked"] == 300
    for number, (name, own) in enumerate(found["histograms"].items()):
        known = columns[name][np.isfinite(columns[name])]
        assert (own["low"], own["high"]) == tuple(np.percentile(known, [0.5, 99.5]))
        expected = [0 if np.isnan(value) else bar_of(value, own) for value in columns[name]]
        assert own["counts"] == np.bincount(expected, minlength=16)[1:].tolist()
        seen = marks_of(picture, number, 2)
        assert seen.shape == shape
        row, column = (columns[f"centroid_{axis}_px"].astype(int) for axis in ("row", "column"))
        wanted = np.zeros_like(seen)
        wanted[row, column] = expected
        np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize("shape", [(5000, 3000), (3, 7000)])
def test_marks_lie_where_the_objects_are_on_large_slides(generator, shape):
    columns = columns_of(1, shape, generator)
    _, picture = histograms.histograms_of_sample(columns, shape)
    seen = marks_of(picture, 0, 1)
    (row,), (column,) = np.nonzero(seen)
    for place, side, axis, length in ((row, 0, "row", shape[0]), (column, 1, "column", shape[1])):
        scale = seen.shape[side] / length
        assert place <= (columns[f"centroid_{axis}_px"][0] + 0.5) * scale < place + 1


def test_of_many_objects_a_thousand_have_marks_spread_over_the_slide(generator):
    columns = columns_of(9000, (400, 400), generator)
    found, picture = histograms.histograms_of_sample(columns, (400, 400))
    assert sum(found["histograms"]["area_px"]["counts"]) == 9000
    assert found["marked"] == 1000
    seen = marks_of(picture, 0, 1) > 0
    assert 950 < np.count_nonzero(seen) <= 1000  # two in a pixel of the picture share a mark
    quarters = seen.reshape(2, 128, 2, 128).sum(axis=(1, 3))
    assert quarters.min() > 150


def test_a_sample_has_histograms_of_four_measurements_and_channels_with_thresholds_come_first(generator):
    numbers = generator.random((9, 20))
    names = ["solidity", "mean_intensity_a", "mean_intensity_b", "mean_intensity_c", "eccentricity", "circularity"]
    columns = columns_of(20, (9, 9), generator, **dict(zip(names, numbers, strict=False)))
    wanted = ["area_px", "circularity", "mean_intensity_a", "mean_intensity_b"]
    assert list(histograms.histograms_of_sample(columns, (9, 9))[0]["histograms"]) == wanted
    columns |= {"positive_c": numbers[0] > 0.5, "area_um2": numbers[8]}
    wanted = ["area_um2", "circularity", "mean_intensity_c", "mean_intensity_a"]
    assert list(histograms.histograms_of_sample(columns, (9, 9))[0]["histograms"]) == wanted


def test_a_sample_of_equal_objects_has_one_bar_and_one_without_objects_none(generator):
    same = columns_of(6, (9, 9), generator, area_px=np.full(6, 5))
    found, _ = histograms.histograms_of_sample(same, (9, 9))
    assert found["histograms"]["area_px"]["counts"] == [6] + [0] * 14
    found, picture = histograms.histograms_of_sample(columns_of(0, (9, 9), generator), (9, 9))
    assert found == {"histograms": {}, "marked": 0}
    assert not marks_of(picture, 0, 1).any()
