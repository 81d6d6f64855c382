"""Ensembles: one network of several, and what is known of how its objects are told apart."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from pipeline.base import paths
from pipeline.base.files import read_json
from pipeline.networks.model_card import Parting, Refinement, card_path, read_card, write_comparisons
from pipeline.networks.weights_file import load_network
from pipeline.project.jobs.ledger import network_ledger_path, read_ledger
from pipeline.project.stage_settings import labels_of, stage_config
from pipeline.project.training_pairs import find_pairs
from pipeline.report.page_content import doubts_tables
from pipeline.settings.schema import parse_settings
from pipeline.settings.stage_sections import TileConfig
from pipeline.training.comparison.pair_metrics import PairPredictor
from pipeline.training.comparison.partings import compare_partings
from tests.support.commands import run_command
from tests.support.jobs import failure_of_network
from tests.support.networks import CLASSES, write_network

ENSEMBLES = {"both": {"members": ["a", "b"], "symmetries": "left_right"}}
TRAINED = {"models": {"a": {}, "b": {}}, "ensembles": ENSEMBLES}
GIVEN = {"models": {name: {"checkpoint": f"{name}/model.safetensors"} for name in "ab"}, "ensembles": ENSEMBLES}


def combine(networks, settings=GIVEN, *, memory_mb=1000, **more):
    """Combine networks into one named ``both``; return the path of its weights."""
    config = stage_config(parse_settings(settings | more, source=""), "combine", "both")
    flags = {"images": "images", "labels": "labels", "threads": 1, "memory_mb": memory_mb}
    assert run_command("combine", model="both", networks=networks, config=config, **flags) == 0
    return Path(paths.NETWORK.format(model="both"))


@pytest.fixture
def networks(in_folder):
    """Two networks of different widths, each with a table of ways to tell objects apart that no network has."""
    made = [write_network(in_folder / name, width=width, depth=2) for name, width in (("a", 2), ("b", 3))]
    for path, f1 in zip(made, (0.25, 0.75), strict=True):
        table = [Parting(settings={"instances": "components"}, f1=f1, rand=f1)]
        write_comparisons(card_path(path), output=card_path(path), parting=table, crf=[])
    return made


@pytest.fixture
def images(in_folder, generator):
    """Five annotated images, of which the last is held back."""
    for name in "12345":
        labels = np.kron(generator.integers(0, 2, (5, 6)), np.ones((8, 8))).astype(np.uint8)
        for kind, pixels in (("images", 90 * labels + generator.integers(0, 60, labels.shape)), ("labels", labels)):
            (in_folder / kind).mkdir(exist_ok=True)
            tifffile.imwrite(in_folder / kind / f"{name}.tif", pixels.astype(np.uint8))


def test_combine_writes_one_network_that_averages(networks):
    output = combine(networks)
    both, card = load_network(output)
    assert (card.architecture, card.classes, card.geometry.stride_px) == ("ensemble", CLASSES, 4)
    members = [load_network(path)[0] for path in networks]
    assert card.parameters == sum(parameter.numel() for network in members for parameter in network.parameters())
    for member, own in zip(members, both.members, strict=True):
        assert all(torch.equal(value, own.state_dict()[name]) for name, value in member.state_dict().items())
    entry = read_ledger(network_ledger_path("combine", "both"))["both"]
    assert (entry.files, entry.found) == ([str(output), str(card_path(output))], {"warnings": []})


def test_networks_that_hold_back_no_image_together_have_the_mean_of_their_tables(networks):
    card = read_card(card_path(combine(networks)))
    assert card.parting == [Parting(settings={"instances": "components"}, f1=0.5, rand=0.5)]


@pytest.mark.usefixtures("images")
def test_an_ensemble_of_trainings_is_compared_itself_on_what_they_hold_back(networks, in_folder):
    network, card = load_network(output := combine(networks, TRAINED, masks={"crf": "auto"}))
    predictor = PairPredictor(
        network=network,
        card=card,
        labels=labels_of(parse_settings(TRAINED, source="")),
        tile=TileConfig(image=parse_settings(TRAINED, source="").image, tile_px=None, mirror_px=16, skip_glass=False),
        memory_mb=1000,
        threads=1,
    )
    last = find_pairs(Path("images"), Path("labels"))[-1:]
    expected = compare_partings(predictor, last, scratch=in_folder)
    assert len(expected) > 5
    assert card.parting[: len(expected)] == expected
    assert card.crf[0].settings is None
    inputs = read_ledger(network_ledger_path("combine", "both"))["both"].inputs
    assert set(inputs) == {"image images/5.tif", "label labels/5.tif", *(f"network {path}" for path in networks)}
    assert read_json(card_path(output))["provenance"]["stage"] == "combine"


@pytest.mark.usefixtures("images")
def test_an_ensemble_too_large_to_be_compared_has_the_mean_too_and_a_warning(networks):
    card = read_card(card_path(combine(networks, TRAINED, memory_mb=1)))
    assert card.parting == [Parting(settings={"instances": "components"}, f1=0.5, rand=0.5)]
    (warning,) = read_ledger(network_ledger_path("combine", "both"))["both"].found["warnings"]
    assert warning.startswith("nothing is compared on the held-back images for masks: tiling.memory_mb is 1, of which")
    (table,) = doubts_tables(parse_settings(TRAINED, source=""))
    assert [row["model"] for row in table.rows] == ["both"]


@pytest.mark.usefixtures("images")
def test_an_image_that_cannot_be_read_is_a_failure_and_no_other_table(networks):
    """Else the table of the members would stay for good, and nobody would know."""
    held_back = Path("images/5.tif")
    held_back.write_bytes(bytes(8) + held_back.read_bytes()[8:])
    combine(networks, TRAINED)
    failure = failure_of_network("combine", "both")
    assert (failure.stage, failure.error_class) == ("combine", "SlideError")
    assert failure.message.startswith("images/5.tif: cannot be read")


@pytest.mark.usefixtures("images")
def test_random_fields_that_are_not_asked_for_have_no_table(networks):
    """Those of the members may be left from a time when they were."""
    for path in networks:
        table = [Refinement(settings=None, foreground_dice=0.5)]
        write_comparisons(card_path(path), output=card_path(path), crf=table)
    assert read_card(card_path(combine(networks, TRAINED))).crf is None
    assert read_card(card_path(combine(networks))).crf == table


def test_combine_refuses_networks_of_other_classes(networks):
    card = card_path(networks[1])
    card.write_text(card.read_text().replace('"object"', '"nucleus"'))
    assert not combine(networks).exists()
    failure = failure_of_network("combine", "both")
    assert (failure.stage, failure.error_class) == ("combine", "SlidemillError")
    assert failure.message.startswith(f"{networks[1]}: 1 channels and classes ['background', 'nucleus']")
