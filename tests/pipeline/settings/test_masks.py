"""``auto`` stands for what was best for a network; what is configured is what is done."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.settings.crf import CrfConfig
from pipeline.settings.masks import MaskConfig, resolve_masks
from pipeline.settings.schema import Settings, parse_settings

USUAL = {"neck": 0.85, "seed": 0.5, "border": 0.4}
TABLE = [
    {"settings": {"instances": "components"}, "f1": 0.7, "rand": 0.2},
    {"settings": {"instances": "distance", "seed": 0.4}, "f1": 0.9, "rand": 0.1},
    {"settings": {"instances": "distance", "seed": 0.5}, "f1": 0.9, "rand": 0.1},
    {"settings": {"instances": "partition", "border": 0.3}, "f1": 0.95, "rand": 0.05},
    {"settings": {"instances": "watershed", "neck": 0.7}, "f1": None, "rand": None},
]


@pytest.mark.parametrize(
    ("criterion", "card", "expected"),
    [
        ("f1", {"parting": TABLE}, {"instances": "distance", "seed": 0.4}),  # of equally good ones, the first
        ("rand", {"parting": TABLE}, {"instances": "partition", "border": 0.3}),
        ("f1", {"parting": TABLE[4:], "heads": []}, {"instances": "components"}),
        ("f1", {"parting": [one | {"f1": 0.09} for one in TABLE[1:]]}, {"instances": "components"}),  # by chance
        ("f1", {"parting": None, "heads": ["distance", "boundary"]}, {"instances": "distance"}),
        ("f1", {}, {"instances": "components"}),
        (
            "rand",
            {"parting": [{"settings": {"instances": "partition", "basin": 0.1}, "f1": 0.9, "rand": 0.0}, *TABLE]},
            {"instances": "partition", "border": 0.3},
        ),  # of an older version
    ],
)
def test_auto_is_what_was_best_for_the_network_and_cleaning_stays(criterion, card, expected):
    masks = MaskConfig(instances="auto", criterion=criterion, min_object_um2=3.0)
    assert resolve_masks(masks, card) == MaskConfig(**USUAL | expected, min_object_um2=3.0)


@pytest.mark.parametrize(
    ("stated", "kept"), [({}, "auto"), ({"min_object_px": 0.0}, 0.0), ({"min_object_px": 7.0}, 7.0)]
)
def test_specks_are_removed_as_was_best_unless_an_area_is_stated(stated, kept):
    best = {"settings": {"instances": "components", "min_object_px": "auto"}, "f1": 0.8, "rand": 0.1}
    found = resolve_masks(MaskConfig(instances="auto", **stated), {"parting": [*TABLE[:1], best]})
    assert found.min_object_px == kept


@pytest.mark.parametrize(
    ("criterion", "stated", "kept"),
    [
        ("rand", {"border": 0.5}, {"border": 0.5}),
        ("rand", {}, {"border": 0.3}),
        ("f1", {"seed": 0.3}, {"seed": 0.3}),
        ("f1", {"seed": 0.5}, {"seed": 0.5}),  # the usual one, not that of the best way
        ("rand", {"border": 0.0}, {"border": 0.0}),
        ("f1", {"border": 0.1}, {"border": 0.4}),  # which `distance` does not use
    ],
)
def test_auto_leaves_numbers_that_are_stated(criterion, stated, kept):
    found = resolve_masks(MaskConfig(instances="auto", criterion=criterion, **stated), {"parting": TABLE})
    assert found.model_dump(include=kept.keys()) == kept


@pytest.mark.parametrize(
    ("instances", "needs"),
    [
        ("components", set()),
        ("watershed", {"probabilities"}),
        ("partition", {"probabilities"}),
        ("distance", {"heads"}),
    ],
)
def test_masks_say_what_they_need_of_a_prediction(instances, needs):
    assert MaskConfig(instances=instances).needs == needs


@pytest.mark.parametrize(
    ("instances", "used"),
    [
        ("none", {}),
        ("components", {}),
        ("watershed", {"neck": 0.3}),
        ("distance", {"neck": 0.3, "seed": 0.2}),
        ("partition", {"border": 0.1}),
    ],
)
def test_what_is_configured_wins_and_what_is_not_used_does_not_count(instances, used):
    masks = MaskConfig(instances=instances, neck=0.3, seed=0.2, border=0.1, criterion="rand", max_hole_px=3.0)
    found = resolve_masks(masks, {"parting": TABLE, "heads": ["distance"]})
    assert found == MaskConfig(instances=instances, max_hole_px=3.0, **USUAL | used)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "auto"),
        ({"training": {"kind": "classes"}}, "components"),
        ({"masks": {"neck": 0.5}}, "auto"),
        ({"masks": {"instances": "components"}}, "components"),
        ({"training": {"kind": "classes"}, "masks": {"instances": "auto"}}, "auto"),
    ],
)
def test_it_is_the_default_where_labels_have_objects(settings, expected):
    found = parse_settings(settings, source="")
    assert found.masks.instances == expected
    assert Settings.model_validate_json(found.model_dump_json()) == found


def test_a_random_field_needs_probabilities_and_stays_with_auto():
    masks = MaskConfig(crf=CrfConfig(smoothness=0.5))
    assert masks.needs == {"probabilities"}
    assert resolve_masks(masks, {"parting": TABLE}).crf == masks.crf
    assert MaskConfig.model_validate_json(masks.model_dump_json()) == masks
    assert MaskConfig(instances="distance", crf=CrfConfig()).needs == {"probabilities", "heads"}


@pytest.mark.parametrize(
    ("crf", "message"),
    [
        ({"smoothness": -1}, "masks.crf.smoothness: Input should be greater than or equal to 0, got -1"),
        ({"smoothness_px": 0}, "masks.crf.smoothness_px: Input should be greater than or equal to 0.5, got 0"),
        ({"appearance_intensity": float("nan")}, "masks.crf.appearance_intensity: .* got nan"),
        ({"width": 3}, "unknown key 'masks.crf.width' .* known keys here: smoothness, smoothness_px, appearance"),
        ({"radius_px": 10, "iterations": 13}, "masks.crf: .* context of 130 px, at most 128 are possible; lower one"),
        ({"smoothness": 0, "appearance": 0}, "masks.crf: smoothness and appearance are both 0, which changes nothing"),
        ({"smoothness": 1e3}, "masks.crf: smoothness 1000 .* At most 0.037 times as much is possible; lower them"),
        (3, r"masks.crf: Input should be a section \(\{\} has its defaults\) or Input should be 'auto'"),
    ],
)
def test_a_random_field_that_makes_no_sense_is_refused_in_one_line(crf, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_settings({"masks": {"crf": crf}}, source="config.yaml")
    assert "\n" not in str(error.value)


def test_a_partition_of_three_classes_is_refused():
    settings = {"classes": ["a", "b", "c"], "training": {"kind": "classes"}, "masks": {"instances": "partition"}}
    with pytest.raises(ConfigError, match="masks.instances 'partition' is for two classes"):
        parse_settings(settings, source="config.yaml")
