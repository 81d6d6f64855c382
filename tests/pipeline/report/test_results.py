"""Every sample is a row with its numbers, and only unusual ones have flags."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.base import paths
from pipeline.base.files import read_json, write_json
from pipeline.report.columns import columns
from pipeline.report.learned import images_learned
from pipeline.report.outcome import Outcome
from pipeline.report.results import results_table
from pipeline.settings.schema import Settings
from tests.support.networks import write_network

LOOK = {"intensity": 0.2, "contrast": 0.5, "skewness": 1.0, "focus": -2.0, "saturated": 0.0, "tissue": 0.4}


pytestmark = pytest.mark.usefixtures("in_folder")  # without a network


@pytest.fixture
def cohort():
    """Twelve samples that resemble each other."""
    generator = np.random.default_rng(0)
    return [
        make(f"plate/{number:02d}", look={name: value * generator.uniform(0.9, 1.1) for name, value in LOOK.items()})
        for number in range(12)
    ]


def make(
    sample,
    *,
    look=LOOK,
    objects=3,
    median_area_px=100,
    area_spread=1.0,
    pixel_size_um=None,
    uncertain=0.05,
    tile_mismatch=None,
    metrics=None,
    warnings=(),
):
    found = {
        "tile": {"pixels": 10**6, "slide_sha256": "0", "appearance": look, "warnings": list(warnings)},
        "predict": {"uncertain": uncertain, "tile_mismatch": tile_mismatch},
        "objects": {
            "objects": objects,
            "median_area_px": median_area_px,
            "area_spread": area_spread,
            "class_objects": [0, objects],
            "class_pixels": [750_000, 250_000],
            "class_median_area_px": [None, median_area_px],
            "pixel_size_um": pixel_size_um,
        },
    }
    files = {"slide": "a.tif", "mask": "a.ome.tiff", "objects_table": "a.csv", "annotations": "a.geojson"}
    if metrics:
        found["evaluate"] = {"metrics": metrics, "warnings": ["its reference: doubtful"]}
        files["metrics"] = "m.csv"
    return Outcome(sample=sample, model="unet", found=found, **files)


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
        ({"objects": 90}, "far more objects than the others"),
        ({"objects": 0, "median_area_px": None}, "far fewer objects than the others"),
        ({"median_area_px": 1000}, "far larger objects than the others"),
        ({"uncertain": 0.4}, "far more uncertain pixels than the others"),
        ({"tile_mismatch": 0.2}, "tiles label more than 2% of their shared pixels differently"),
    ],
)
def test_an_unusual_sample_is_flagged_and_no_other(cohort, odd, reason):
    table = table_of([*cohort, make("plate/odd", **odd)])
    assert reason in table.loc["plate/odd", "flags"]
    assert table["flags"].drop("plate/odd").tolist() == [""] * 12


def test_areas_and_counts_of_classes_need_no_reference(cohort):
    table = table_of([*cohort, make("sized", pixel_size_um=[0.5, 0.2])])
    row = table.loc["sized"]
    assert (row["pixels"], row["pixels_predicted_background"], row["pixels_predicted_object"]) == (
        10**6,
        750_000,
        250_000,
    )
    assert (row["share_background"], row["share_object"], row["count_object"]) == (0.75, 0.25, 3)
    assert (row["area_um2_object"], row["median_area_um2"]) == (pytest.approx(25_000), pytest.approx(10))
    unknown = table.loc["plate/00"]
    assert (unknown["share_object"], unknown["count_object"]) == (0.25, 3)
    assert unknown[["area_um2_object", "median_area_um2"]].isna().all()


def slides_of(pixel_size_um, *, objects, median_area_px):
    """Eight slides of 10⁶ px of one scale, all nearly alike; ``None``: of an unknown one."""
    size = pixel_size_um and [pixel_size_um] * 2
    return [
        make(f"{pixel_size_um}/{n}", objects=objects + n, median_area_px=median_area_px + n, pixel_size_um=size)
        for n in range(8)
    ]


def test_slides_of_other_scales_are_compared_in_um_and_those_of_unknown_scale_with_each_other():
    fine, coarse = slides_of(0.25, objects=100, median_area_px=1600), slides_of(1.0, objects=1600, median_area_px=100)
    unknown = slides_of(None, objects=20, median_area_px=9000)
    assert table_of([*fine, *coarse[:1], *unknown])["flags"].tolist() == [""] * 17
    odd = make("odd", objects=100, median_area_px=1600, pixel_size_um=[1.0, 1.0])  # the numbers of the fine ones, in px
    flags = table_of([*fine, *coarse[:1], *unknown, odd])["flags"]
    assert flags["odd"] == "far fewer objects than the others; far larger objects than the others"
    assert flags.drop("odd").tolist() == [""] * 17
    lost = make("lost", objects=100, median_area_px=1600)  # the same numbers without a scale
    flags = table_of([*fine, *unknown, lost])["flags"]
    assert flags["lost"] == "far more objects than the others; far smaller objects than the others"


def test_what_was_doubtful_about_slide_and_reference_is_flagged(cohort):
    metrics = {"pixel_accuracy": 0.2, "objects_truth": 3, "pixels_truth_background": 500_000}
    odd = make("plate/odd", warnings=["1 of its 4 tiles are absent"], metrics=metrics)
    table = table_of([*cohort, odd])
    assert table.loc["plate/odd", "flags"] == (
        "1 of its 4 tiles are absent; its reference: doubtful; "
        "its reference: most pixels have another class than in the mask (inverted, or of another image?)"
    )


def test_a_failed_sample_is_a_row_without_numbers(cohort):
    failed = Outcome(sample="bad", model="unet", slide="bad.tif", stage="tile", error="empty")
    row = table_of([*cohort, failed]).loc["bad"]
    assert (row["status"], row["stage"], row["error"], row["flags"]) == ("failed", "tile", "empty", "")
    assert row[["objects", "dice_mean", "uncertain"]].isna().all()


def test_a_reference_that_failed_takes_no_flag_from_its_slide(cohort):
    odd = make("odd", look=LOOK | {"focus": -9.0}, warnings=["1 of its 4 tiles are absent"])
    failed = replace(odd, stage="evaluate", error="bad.tif: no labels")
    tables = [table_of([*cohort, one]) for one in (odd, failed)]
    assert [table.loc["odd", "status"] for table in tables] == ["done", "failed"]
    for table in tables:
        assert table.loc["odd", "flags"] == "1 of its 4 tiles are absent; less sharp than the training images"
        assert table.loc["odd", "objects"] == 3
        assert table["flags"].drop("odd").tolist() == [""] * 12


def test_a_slide_that_failed_later_keeps_what_was_doubtful_about_it():
    doubtful = make("a", warnings=["1 of its 4 tiles are absent"]).found["tile"]
    failed = Outcome(sample="a", model="unet", slide="", stage="predict", error="x", found={"tile": doubtful})
    assert table_of([failed]).loc["a", "flags"] == "1 of its 4 tiles are absent"


def test_groups_are_those_of_the_sheet(cohort):
    table = table_of(cohort, **{"plate/00": "mouse 1"})
    assert table.loc["plate/00", "group"] == "mouse 1"
    assert table["group"].drop("plate/00").isna().all()


def test_few_slides_are_not_compared_with_each_other(cohort):
    table = table_of([*cohort[:6], make("plate/odd", look=LOOK | {"focus": -9.0})])
    assert table["flags"].tolist() == [""] * 7


def test_metrics_are_those_of_the_ledger_and_null_is_empty(cohort):
    metrics = {"dice_mean": 0.5, "objects_truth": 7, "hausdorff95_mean": None, "distance_unit": "um", "version": "1"}
    table = table_of([*cohort, make("measured", metrics=metrics)])
    row = table.loc["measured"]
    assert row[["dice_mean", "objects_truth", "distance_unit", "version"]].tolist() == [0.5, 7, "um", "1"]
    assert table["hausdorff95_mean"].isna().all()
    assert table["dice_mean"].notna().sum() == 1


def test_a_sample_that_failed_after_its_metrics_keeps_them(cohort):
    measured = make("late", metrics={"dice_mean": 0.5})
    late = Outcome(
        **vars(measured) | {"stage": "objects", "error": "x", "found": {"evaluate": measured.found["evaluate"]}}
    )
    assert table_of([*cohort, late]).loc["late", "dice_mean"] == 0.5


def test_the_order_of_samples_does_not_change_their_flags(cohort):
    odd = make("odd", look=LOOK | {"focus": -9.0}, uncertain=0.5)
    flags = [table_of(found)["flags"].sort_index().tolist() for found in ([*cohort, odd], [odd, *cohort[::-1]])]
    assert flags[0] == flags[1]


def write_card(**changes):
    network = Path(paths.NETWORK.format(model="unet"))
    write_network(network.parent, width=2, depth=2)
    card = read_json(network.with_name("model.json"))
    write_json(network.with_name("model.json"), card | changes)


ANNOTATED = {"small_area_px": 80.0, "spread": 1.0, "most_per_mpx": 50.0}


@pytest.mark.parametrize(
    ("sample", "flags"),
    [
        ({"objects": 40}, ""),
        ({"objects": 0, "median_area_px": None, "area_spread": None}, ""),
        ({"objects": 40, "median_area_px": 1}, "far smaller objects than the annotated ones"),
        ({"objects": 400}, "far more objects than annotated"),
        ({"objects": 40, "area_spread": 0.0}, "objects of nearly one size, unlike the annotated ones"),
        ({"objects": 3, "area_spread": 0.0}, ""),  # too few to tell
        (
            {"objects": 7917, "median_area_px": 1, "area_spread": 0.0},  # a checkerboard
            "far smaller objects than the annotated ones; far more objects than annotated; "
            "objects of nearly one size, unlike the annotated ones",
        ),
    ],
)
def test_objects_unlike_the_annotated_ones_are_flagged(sample, flags):
    write_card(objects=ANNOTATED)
    assert table_of([make("a", **sample)]).loc["a", "flags"] == flags


def test_a_poor_network_and_a_poor_sample_are_flagged():
    write_card(metrics={"foreground_dice": 0.31})
    counts = {"pixels_truth_background": 700_000, "objects_truth": 3, "pixel_accuracy": 0.9}
    found = [make("a", metrics=counts | {"foreground_dice": dice}) for dice in (0.9,)]
    found += [make("b", metrics=counts | {"foreground_dice": 0.2}), make("c")]
    flags = table_of(found)["flags"]
    network = "its network: foreground Dice 0.31 on the held-back images"
    assert flags["a"] == f"its reference: doubtful; {network}"
    assert flags["b"] == f"its reference: doubtful; {network}; foreground Dice 0.20 against its reference"
    assert flags["c"] == network


def test_an_image_that_the_network_has_learned_from_is_no_evidence():
    write_card(provenance={"sha256": {"data/training/images/x.tif": "0"}})
    table = table_of([make("a")])
    assert table.loc["a", "learned"] == "yes"
    assert "the network was trained on this image: left out of means" in table.loc["a", "flags"]
    write_card(provenance={"sha256": {"data/training/images/x.tif": "1"}})
    assert table_of([make("a")]).loc["a", "learned"] == ""


def test_a_network_has_learned_what_its_members_and_its_start_have():
    settings = Settings.model_validate(
        {
            "models": {"unet": {"folds": 2}, "next": {"pretrained": "unet", "folds": 2}},
            "ensembles": {"all": {"members": ["next"]}},
        }
    )
    for name, image in (("unet/fold1", "a"), ("unet/fold2", "b"), ("next/fold1", "c"), ("next/fold2", "d")):
        path = Path(paths.CARD.format(model=name))
        path.parent.mkdir(parents=True)
        write_json(path, {"provenance": {"sha256": {"image": image}}})
    assert images_learned(settings, "all") == set("abcd")
    assert images_learned(settings, "unet") == set("ab")
