"""The tables of what was compared on held-back images: ways to tell objects apart, random fields; those in use."""

from pathlib import Path

import pytest

from pipeline.networks.model_card import Parting, Refinement, card_path, write_comparisons
from pipeline.report.tables.compared import partings_table, refinements_table
from pipeline.settings.schema import Settings
from tests.support.networks import write_network

TRIED = [
    Parting(settings={"instances": "components"}, f1=0.7, rand=0.3),
    Parting(settings={"instances": "watershed", "neck": 0.75}, f1=0.8, rand=0.2),
    Parting(settings={"instances": "watershed", "neck": 0.85}, f1=0.9, rand=0.25),
    Parting(settings={"instances": "partition", "border": 0.4}, f1=None, rand=None),
]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({}, [("components", "", ""), ("watershed", "neck 0.85", "yes"), ("partition", "border 0.4", "")]),
        (
            {"criterion": "rand"},
            [("components", "", ""), ("watershed", "neck 0.75", "yes"), ("partition", "border 0.4", "")],
        ),
        (
            {"instances": "watershed", "neck": 0.75},
            [
                ("components", "", ""),
                ("watershed", "neck 0.75", "yes"),
                ("watershed", "neck 0.85", ""),
                ("partition", "border 0.4", ""),
            ],
        ),
    ],
)
def test_the_best_of_each_way_and_what_is_used(in_folder, masks, expected):
    weights = write_network(in_folder / "net", width=2)
    write_comparisons(card_path(weights), output=card_path(weights), parting=TRIED)
    config = Settings(
        masks={"instances": "auto"} | masks, models={"net": {"checkpoint": str(Path("net/model.safetensors"))}}
    )
    table = partings_table(config)
    assert [*zip(table["way"], table["settings"], table["used"], strict=True)] == expected


def test_a_way_with_specks_is_not_the_one_without(in_folder):
    weights = write_network(in_folder / "net", width=2)
    models = {"net": {"checkpoint": str(Path("net/model.safetensors"))}}
    for f1, expected in ((0.6, [("min_object_px auto", "yes")]), (0.8, [("", "yes")])):
        tried = [
            Parting(settings={"instances": "components"}, f1=f1, rand=0.3),
            Parting(settings={"instances": "components", "min_object_px": "auto"}, f1=0.7, rand=0.3),
        ]
        write_comparisons(card_path(weights), output=card_path(weights), parting=tried)
        table = partings_table(Settings(masks={"instances": "auto"}, models=models))
        assert [*zip(table["settings"], table["used"], strict=True)] == expected


@pytest.mark.parametrize(("crf", "neck"), [("auto", 0.6), (None, 0.9), ({"smoothness": 9.0}, 0.9)])
def test_ways_after_the_field_that_masks_have_are_shown_alone(in_folder, crf, neck):
    weights = write_network(in_folder / "net", width=2)
    field = {"smoothness": 3.0, "appearance": 0.0}
    ways = [
        ({"neck": 0.6}, 0.7),
        ({"neck": 0.9}, 0.8),
        ({"neck": 0.6, "crf": field}, 0.9),
        ({"neck": 0.9, "crf": field}, 0.85),
    ]
    tried = [Parting(settings={"instances": "watershed"} | more, f1=f1, rand=0.3) for more, f1 in ways]
    fields = [Refinement(settings=None, foreground_dice=0.7), Refinement(settings=field, foreground_dice=0.8)]
    write_comparisons(card_path(weights), output=card_path(weights), parting=tried, crf=fields)
    models = {"net": {"checkpoint": str(Path("net/model.safetensors"))}}
    table = partings_table(Settings(masks={"instances": "auto", "crf": crf}, models=models))
    assert [*zip(table["settings"], table["used"], strict=True)] == [(f"neck {neck}", "yes")]


@pytest.mark.parametrize(("crf", "used"), [("auto", ["", "yes"]), (None, ["yes", ""]), ({"smoothness": 9.0}, ["", ""])])
def test_every_random_field_and_what_is_used(in_folder, crf, used):
    weights = write_network(in_folder / "net", width=2)
    tried = [
        Refinement(settings=None, foreground_dice=0.7),
        Refinement(settings={"smoothness": 3.0, "appearance": 0.0}, foreground_dice=0.8),
    ]
    write_comparisons(card_path(weights), output=card_path(weights), crf=tried)
    models = {"net": {"checkpoint": str(Path("net/model.safetensors"))}}
    table = refinements_table(Settings(masks={"instances": "none", "crf": crf}, models=models))
    assert table["settings"].tolist() == ["none", "smoothness 3, appearance 0"]
    assert table["foreground_dice"].tolist() == [0.7, 0.8]
    assert table["used"].tolist() == used
