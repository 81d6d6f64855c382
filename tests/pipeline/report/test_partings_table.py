"""The table of ways to tell objects apart: the best settings of each way, and those in use."""

from pathlib import Path

import pytest

from pipeline.networks.model_card import Parting, card_path, write_partings
from pipeline.report.tables.partings import partings_table
from pipeline.settings.schema import Settings
from tests.support.networks import write_network

TRIED = [
    Parting(settings={"instances": "components"}, f1=0.7, rand=0.3),
    Parting(settings={"instances": "watershed", "neck": 0.75}, f1=0.8, rand=0.2),
    Parting(settings={"instances": "watershed", "neck": 0.85}, f1=0.9, rand=0.25),
    Parting(settings={"instances": "partition", "basin": 0.05}, f1=None, rand=None),
]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({}, [("components", "", ""), ("watershed", "neck 0.85", "yes"), ("partition", "basin 0.05", "")]),
        (
            {"criterion": "rand"},
            [("components", "", ""), ("watershed", "neck 0.75", "yes"), ("partition", "basin 0.05", "")],
        ),
        (
            {"instances": "watershed", "neck": 0.75},
            [
                ("components", "", ""),
                ("watershed", "neck 0.75", "yes"),
                ("watershed", "neck 0.85", ""),
                ("partition", "basin 0.05", ""),
            ],
        ),
    ],
)
def test_the_best_of_each_way_and_what_is_used(in_folder, masks, expected):
    weights = write_network(in_folder / "net", width=2)
    write_partings(card_path(weights), TRIED, output=card_path(weights))
    config = Settings(
        masks={"instances": "auto"} | masks, models={"net": {"checkpoint": str(Path("net/model.safetensors"))}}
    )
    table = partings_table(config)
    assert [*zip(table["way"], table["settings"], table["used"], strict=True)] == expected
