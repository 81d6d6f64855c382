"""A finished training is never lost, and networks of the zoo are trained like the others."""

import shutil
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.base import paths
from pipeline.base.files import read_json
from pipeline.networks import weights_file
from pipeline.networks.model_card import Refinement, card_path
from pipeline.networks.weights_file import load_network
from pipeline.settings.masks import MaskConfig
from tests.support.training import FOLDERS, NETWORK, Project


def train(project, name="unet"):
    """Train in this process; return the exit status."""
    arguments = [f"--weight-maps={project.weight_maps}", "--threads=1", "--devices=1", "--memory-mb=2000"]
    return main(["train", f"--model={name}", *FOLDERS, *arguments, "--config", project.config("train")])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.slow
def test_a_network_of_the_zoo_is_trained(in_folder, channels):
    network = NETWORK.model_copy(
        update={"architecture": "smp/unet/resnet18", "options": {}, "max_steps": 4, "patch_px": 64, "batch_size": 2}
    )
    project = Project(in_folder, network, channels)
    assert train(project) == 0
    trained, card = load_network(project.path("unet", paths.NETWORK))
    assert (card.architecture, card.in_channels, card.geometry) == ("smp/unet/resnet18", channels, trained.geometry)


@pytest.mark.slow
def test_a_finished_training_is_not_lost_if_its_card_cannot_be_written(in_folder, monkeypatch, caplog):
    project = Project(in_folder)
    weights = project.path("unet", paths.NETWORK)
    with monkeypatch.context() as fault:
        fault.setattr(weights_file, "write_json", lambda *_, **__: 1 / 0)
        train(project)
    assert not weights.exists()
    assert not card_path(weights).exists()
    caplog.set_level("INFO")
    assert train(project) == 0
    assert "continuing after step 16" in caplog.text
    load_network(weights)


@pytest.mark.slow
def test_the_held_back_images_are_drawn_also_if_the_network_was_kept(in_folder):
    project = Project(in_folder)
    assert train(project) == 0
    folder = project.path("unet", paths.HELD_BACK)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (image,) = read_json(folder / "held_back.json")
    assert {str(path) for path in files} == {
        "held_back.json",
        *(f"{image}.{name}" for name in ("image.webp", "truth_outlines.png", "predicted_outlines.png")),
    }
    shutil.rmtree(folder)
    project.path("unet", paths.NETWORK).unlink()
    assert train(project) == 0  # found again
    assert files == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_random_fields_are_compared_when_a_run_asks_for_it_and_nothing_is_trained_for_them(in_folder, caplog):
    project = Project(in_folder)
    assert train(project) == 0
    weights = project.weights("unet")
    assert read_json(project.path("unet", paths.CARD))["crf"] is None
    project.settings = project.settings.model_copy(update={"masks": MaskConfig(crf="auto")})
    caplog.set_level("INFO")
    assert train(project) == 0
    assert "it is used again" in caplog.text
    assert project.weights("unet") == weights
    card = read_json(project.path("unet", paths.CARD))
    assert card["crf"][0]["settings"] is None
    assert all(0 <= one["foreground_dice"] <= 1 for one in card["crf"])


@pytest.mark.slow
def test_ways_to_tell_objects_apart_are_also_compared_after_the_best_random_field(in_folder, monkeypatch):
    best = {"smoothness": 3.0, "appearance": 0.0}
    fields = [Refinement(settings=None, foreground_dice=0.5), Refinement(settings=best, foreground_dice=0.6)]
    monkeypatch.setattr("pipeline.training.comparison.tables.compare_refinements", lambda *_, **__: fields)
    project = Project(in_folder)
    project.settings = project.settings.model_copy(update={"masks": MaskConfig(crf="auto")})
    assert train(project) == 0
    ways = [one["settings"] for one in read_json(project.path("unet", paths.CARD))["parting"]]
    half = len(ways) // 2
    assert ways[half:] == [way | {"crf": best} for way in ways[:half]]


@pytest.mark.slow
def test_labels_beside_what_they_mark_are_a_warning_also_if_the_network_was_kept(in_folder, monkeypatch):
    monkeypatch.setattr("pipeline.stages.train.common_shift", lambda _: (-0.6, 0.0))
    project = Project(in_folder)
    for _ in range(2):
        assert train(project) == 0
        assert read_json(project.path("unet", paths.CARD))["label_shift_px"] == [-0.6, 0.0]
        ledger = read_json(Path(paths.NETWORK_LEDGER.format(stage="train", model="unet")))
        assert "lie 0.6 px above what the network finds" in str(ledger)
        project.path("unet", paths.NETWORK).unlink()


@pytest.mark.slow
def test_batches_of_one_patch_are_a_warning(in_folder):
    project = Project(in_folder, NETWORK.model_copy(update={"max_steps": 2, "batch_size": 1}))
    assert train(project) == 0
    ledger = read_json(Path(paths.NETWORK_LEDGER.format(stage="train", model="unet")))
    assert "batches of one patch" in str(ledger)
