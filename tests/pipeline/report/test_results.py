"""Every sample is a row with its numbers, and only unusual ones have flags."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.base import paths
from pipeline.base.files import write_json
from pipeline.report.columns import columns
from pipeline.report.outcome import Outcome
from pipeline.report.results import results_table
from pipeline.settings.schema import Settings
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan import Plan
from tests.support.prediction import SPEED, plan_of

LOOK = {"intensity": 0.2, "contrast": 0.5, "skewness": 1.0, "focus": -2.0, "saturated": 0.0, "tissue": 0.4}


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Twelve samples that resemble each other, as the stages leave them."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    return [
        make(f"plate/{number:02d}", look={name: value * generator.uniform(0.9, 1.1) for name, value in LOOK.items()})
        for number in range(12)
    ]


def make(sample, *, look=LOOK, areas=(90, 100, 110), uncertain=0.05, mismatch=None):
    names = {"sample": sample, "model": "unet", "batch": "plate/1"}
    places = {name: Path(getattr(paths, name).format(**names)) for name in ("PLAN", "OBJECTS", "APPEARANCE", "SPEED")}
    for path in places.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    grid = Grid(shape=(1000, 1000), tile=(512, 512), halo_px=0, stride_px=1)
    write_json(places["PLAN"], Plan(sample=sample, slide=plan_of(grid)).to_dict())
    write_json(places["APPEARANCE"], {"appearance": look})
    places["OBJECTS"].write_text("id,area_px\n" + "".join(f"{index},{area}\n" for index, area in enumerate(areas, 1)))
    speed = json.loads(places["SPEED"].read_text()) if places["SPEED"].is_file() else {"uncertain": {}, "mismatch": {}}
    speed["uncertain"][sample] = uncertain
    speed["mismatch"] |= {} if mismatch is None else {sample: mismatch}
    write_json(places["SPEED"], asdict(replace(SPEED, uncertain=speed["uncertain"], mismatch=speed["mismatch"])))
    files = {"slide": Path("a.tif"), "mask": Path("a.ome.tiff"), "objects_table": places["OBJECTS"]}
    return Outcome(**names, **files, annotations=places["OBJECTS"])


def table_of(found, **groups):
    return results_table(found, Settings(), groups).set_index("sample")


def test_a_good_cohort_has_no_flags(cohort):
    table = table_of(cohort)
    assert table["flags"].tolist() == [""] * 12
    assert table["objects"].tolist() == [3] * 12
    assert table["median_area_px"].tolist() == [100] * 12
    assert table["uncertain"].tolist() == [0.05] * 12
    assert ["sample", *table.columns] == [column.name for column in columns(Settings().classes)]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"look": LOOK | {"intensity": 0.9, "skewness": -2.0}}, "brighter than the training images"),
        ({"look": LOOK | {"focus": -4.0}}, "less sharp than the training images"),
        ({"areas": [100] * 90}, "far more objects than the others"),
        ({"areas": ()}, "far fewer objects than the others"),
        ({"areas": (900, 1000, 1100)}, "far larger objects than the others"),
        ({"uncertain": 0.4}, "far more uncertain pixels than the others"),
        ({"mismatch": 0.2}, "tiles label more than 2% of their shared pixels differently"),
    ],
)
def test_an_unusual_sample_is_flagged_and_no_other(cohort, odd, reason):
    table = table_of([*cohort, make("plate/odd", **odd)])
    assert reason in table.loc["plate/odd", "flags"]
    assert table["flags"].drop("plate/odd").tolist() == [""] * 12


def test_a_failed_sample_is_a_row_without_numbers(cohort):
    failed = Outcome(sample="bad", model="unet", slide=Path("bad.tif"), stage="tile", error="empty")
    row = table_of([*cohort, failed]).loc["bad"]
    assert (row["status"], row["stage"], row["error"], row["flags"]) == ("failed", "tile", "empty", "")
    assert row[["objects", "dice_mean", "uncertain"]].isna().all()


def test_groups_are_those_of_the_sheet(cohort):
    table = table_of(cohort, **{"plate/00": "mouse 1"})
    assert table.loc["plate/00", "group"] == "mouse 1"
    assert table["group"].drop("plate/00").isna().all()


def test_few_slides_are_not_compared_with_each_other(cohort):
    table = table_of([*cohort[:6], make("plate/odd", look=LOOK | {"focus": -9.0})])
    assert table["flags"].tolist() == [""] * 7
