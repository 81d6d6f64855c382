"""Tables of classes and objects: by hand, of slides with and without a pixel size, and of several kinds."""

import csv
from operator import attrgetter

import pandas as pd
import pytest

from pipeline.report.columns import columns, short_columns
from pipeline.report.outcome import Outcome
from pipeline.report.tables import all_objects, class_summary
from pipeline.report.tables.data_dictionary import data_dictionary
from pipeline.settings.measurements import MeasurementsConfig

CLASSES = ["background", "cell", "debris"]


def make(sample, *, pixel_size_um=None, **state):
    measured = {
        "class_objects": [0, 4, 0],
        "class_pixels": [600_000, 400_000, 0],
        "class_median_area_px": [None, 50.5, None],
        "pixel_size_um": pixel_size_um,
    }
    return Outcome(
        sample=sample, model="unet", slide="", found={"tile": {"pixels": 10**6}, "objects": measured}, **state
    )


def test_the_classes_of_a_slide_by_hand():
    found = [make("sized", pixel_size_um=[0.5, 0.2]), make("unsized"), make("failed", stage="objects", error="x")]
    table = class_summary.class_summary(found, CLASSES, {"sized": "mouse"})
    assert list(table.columns) == [column.name for column in class_summary.COLUMNS]
    assert table["sample"].tolist() == ["sized"] * 3 + ["unsized"] * 3
    background, cell, debris = table[table["sample"] == "sized"].to_dict("records")
    assert (cell["class"], cell["group"], cell["count"], cell["area_px"]) == ("cell", "mouse", 4, 400_000)
    assert (cell["share"], background["share"]) == (0.4, 0.6)
    assert cell["area_mm2"] == pytest.approx(0.04)
    assert cell["density_per_mm2"] == pytest.approx(40)  # of the whole slide, 0.1 mm²
    assert (cell["median_area_px"], cell["median_area_um2"]) == (50.5, pytest.approx(5.05))
    assert pd.isna(background["count"])
    assert (debris["count"], debris["density_per_mm2"], debris["area_mm2"]) == (0, 0, 0)
    unsized = table[table["sample"] == "unsized"]
    assert unsized[["area_mm2", "density_per_mm2", "median_area_um2"]].isna().all(axis=None)
    assert unsized["median_area_px"].tolist()[1] == 50.5


def test_objects_of_all_slides_are_one_table(tmp_path):
    tables = {
        "a": "id,class,mean_intensity_0\n1,cell,0.5\n2,debris,7.25\n",
        "=b": "id,class,mean_intensity_DAPI\n1,cell,3.0\n",
        "empty": "id,class,mean_intensity_0\n",
        "failed": "id,class,mean_intensity_0\n9,cell,1.0\n",
    }
    found = []
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
        state = {"stage": "evaluate", "error": "x"} if name == "failed" else {}
        found.append(make(name, objects_table=str(tmp_path / f"{name}.csv"), **state))
    all_objects.gather(tmp_path / "objects.csv", found, {"a": "one, two"}, table_of=attrgetter("objects_table"))
    with (tmp_path / "objects.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["sample", "model", "group", "id", "class", "mean_intensity_0", "mean_intensity_DAPI"]
    assert rows == [
        ["a", "unet", "one, two", "1", "cell", "0.5", ""],
        ["a", "unet", "one, two", "2", "debris", "7.25", ""],
        ["'=b", "unet", "", "1", "cell", "", "3.0"],
    ]


def test_tables_of_equal_columns_are_copied_as_they_are(tmp_path):
    table = tmp_path / "a.csv"
    table.write_text("id,class\n1,cell\n2,cell\n")
    found = [make("a", objects_table=str(table)), make("b", objects_table=str(table))]
    all_objects.gather(tmp_path / "objects.csv", found, {}, table_of=attrgetter("objects_table"))
    assert (tmp_path / "objects.csv").read_text() == (
        "sample,model,group,id,class\na,unet,,1,cell\na,unet,,2,cell\nb,unet,,1,cell\nb,unet,,2,cell\n"
    )


def test_every_column_has_a_meaning_and_every_number_a_unit_or_is_a_count():
    table = data_dictionary(CLASSES, [0, "DAPI"], MeasurementsConfig())
    assert table["meaning"].str.endswith(".").all()
    units = table.set_index(["table", "column"])["unit"]
    assert units["metrics.csv", "foreground_dice"] == units["metrics-all.csv", "share_cell"] == "1"
    assert units["metrics-all.csv", "pixels_cell_as_debris"] == units["objects.csv", "centroid_row_px"] == "px"
    assert units["metrics-all.csv", "area_um2_cell"] == units["summary.csv", "median_area_um2"] == "µm²"
    assert units["summary.csv", "density_per_mm2"] == "1/mm²"
    assert (
        units["metrics-all.csv", "hausdorff95_mean"] == units["metrics-all.csv", "tolerance"] == "as in distance_unit"
    )
    assert units["metrics.csv", "objects"] == units["metrics.csv", "sample"] == ""
    assert units["objects.csv", "sd_intensity_DAPI"] == "as in the slide"
    assert units["objects.csv", "max_feret_um"] == units["regions.csv", "max_feret_um_mean"] == "µm"
    assert units["regions.csv", "objects_per_mm2"] == "1/mm²"
    assert units["regions.csv", "area_um2_sd"] == "µm²"
    assert units["regions.csv", "area_px_mean"] == units["regions.csv", "region_area_px"] == "px"
    assert units["regions.csv", "mean_intensity_DAPI_mean"] == "as in the slide"
    assert ("regions.csv", "id_mean") not in units.index


def test_tables_of_planes_have_their_numbers():
    table = data_dictionary(CLASSES, [0], MeasurementsConfig(), each=("z",))
    named = {name: part["column"].tolist() for name, part in table.groupby("table", sort=False)}
    assert named["objects.csv"][3:6] == ["id", "z", "class"]
    assert named["regions.csv"][:5] == ["sample", "model", "group", "z", "region"]
    assert "z_mean" not in named["regions.csv"]


def test_the_short_table_has_columns_of_the_long_one():
    names = short_columns(CLASSES)
    assert set(names) < {column.name for column in columns(CLASSES)}
    assert names[6:11] == ["foreground_dice", "dice_mean", "dice_background", "dice_cell", "dice_debris"]
