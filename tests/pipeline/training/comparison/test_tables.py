"""The tables of a network are made once; one that is empty, for lack of memory, is made when there is enough."""

import numpy as np
import pytest
import tifffile
import torch

from pipeline.networks.model_card import card_path, read_card
from pipeline.project.stage_settings import stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.settings.schema import parse_settings
from pipeline.settings.stage_sections import TrainConfig, parse_stage_config
from pipeline.training.comparison import tables
from pipeline.training.comparison.tables import compare_on_held_back
from tests.support.networks import write_network


@pytest.fixture
def compare(tmp_path, generator):
    weights = write_network(tmp_path, width=2, depth=1)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        tifffile.imwrite(tmp_path / kind / "a.tif", generator.integers(0, 2, (40, 48), dtype=np.uint8))
    pairs = find_pairs(tmp_path / "images", tmp_path / "labels")
    config = parse_stage_config(TrainConfig, stage_config(parse_settings({}, source=""), "train", "unet")).comparison

    def run(memory_mb):
        warnings = compare_on_held_back(weights, pairs, config, device=torch.device("cpu"), memory_mb=memory_mb)
        return warnings, read_card(card_path(weights)).parting

    return run


def test_the_warning_stays_until_there_is_enough_memory(compare):
    for _ in range(2):
        warnings, table = compare(memory_mb=1)
        assert ["tiling.memory_mb is 1" in warning for warning in warnings] == [True]
        assert table == []
    warnings, table = compare(memory_mb=1000)
    assert (warnings, len(table) > 5) == ([], True)


def test_what_was_compared_is_not_predicted_again(compare, monkeypatch):
    _, table = compare(memory_mb=1000)
    monkeypatch.setattr(tables, "load_network", lambda _: pytest.fail("it is loaded"))
    assert compare(memory_mb=1000) == ([], table)
