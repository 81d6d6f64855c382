"""A killed training continues to the same weights; two processes train like one."""

import logging
import signal
import time

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from pipeline.base import paths
from pipeline.settings.networks import OptimizerConfig
from pipeline.training import history
from pipeline.training import loop as training
from pipeline.training.state import TrainingState, read_state, write_state
from tests.support.training import NETWORK, Project, train_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    made.train("undisturbed")
    return made


def test_a_killed_training_continues_to_the_same_weights(project, caplog):
    """Killed after its first validation, then somewhere after the third; the history is deleted each time."""
    for records, later_s in ((1, 0.0), (3, 0.02)):
        with project.start("killed") as job:
            while job.poll() is None and len(project.history("killed")) < records:
                time.sleep(0.01)
            time.sleep(later_s)
            job.send_signal(signal.SIGKILL)
            log = job.communicate()[1]
        assert job.returncode == -signal.SIGKILL, log
        (project.path("killed", paths.TRAINING) / "history.csv").unlink()
    assert not project.path("killed", paths.NETWORK).exists()
    caplog.set_level(logging.INFO)
    project.train("killed")
    assert "continuing after step " in caplog.text
    assert project.weights("killed") == project.weights("undisturbed")
    columns = ["step", "learning_rate", "loss", "dice_mean"]
    whole, resumed = (project.history(name)[columns] for name in ("undisturbed", "killed"))
    pd.testing.assert_frame_equal(whole, resumed)
    assert list(whole["step"]) == [4, 8, 12, 16]


def test_every_network_is_kept_and_used_again(project, caplog):
    """Under the settings it was made with, also if its files were deleted; a higher limit goes on from it."""
    caplog.set_level(logging.INFO)
    made = {}
    for steps, said in (
        (4, "held back"),
        (8, "continuing after step 4"),
        (4, "it is used again"),
        (8, "it is used again"),
        (6, "training starts from the beginning"),
    ):
        caplog.clear()
        project.with_network(NETWORK.model_copy(update={"max_steps": steps})).train("kept")
        assert said in caplog.text
        files = {pattern: project.path("kept", pattern) for pattern in (paths.NETWORK, paths.CARD, paths.HISTORY)}
        content = [path.read_bytes() for path in files.values()]
        assert made.setdefault(steps, content) == content
        history = pd.read_csv(files[paths.HISTORY])
        assert history["step"].max() == steps
        files[paths.NETWORK].unlink()
    assert list(history["max_steps"]) == [6, 6]


def test_a_training_that_fails_leaves_the_network_of_other_settings(project, monkeypatch):
    """The old one with its card and its history."""
    project.train("old")
    files = [project.path("old", pattern) for pattern in (paths.NETWORK, paths.CARD, paths.HISTORY)]
    before = [path.read_bytes() for path in files]
    write = history.History.write

    def fail(self, *arguments):
        write(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(history.History, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        project.with_network(NETWORK.model_copy(update={"learning_rate": 0.002})).train("old")
    assert [path.read_bytes() for path in files] == before


def test_a_training_goes_on_to_higher_limits(tmp_path):
    """Of steps, time and patience; under a lower one, it would have ended before."""
    settings = {"validate_every": 4, "max_minutes": 1.0, "patience": 9}
    train_in(tmp_path, max_steps=4, **settings)
    _, _, longer = train_in(tmp_path, max_steps=8, **settings | {"max_minutes": None, "patience": None})
    assert list(longer["step"]) == [4, 8]
    assert list(longer["max_steps"]) == [4, 8]
    _, _, shorter = train_in(tmp_path, max_steps=8, **settings)
    assert list(shorter["max_steps"]) == [8, 8]


def test_two_processes_have_the_losses_weights_and_statistics_of_one(project):
    """With SGD: AdamW amplifies rounding errors, the gradient of a bias before normalization, to whole steps."""
    optimizer = OptimizerConfig(kind="sgd", momentum=0.9)
    by_sgd = project.with_network(NETWORK.model_copy(update={"optimizer": optimizer}))
    by_sgd.train("sgd one")
    by_sgd.train_on_two("sgd two")
    one, two = (safetensors.torch.load_file(project.path(name, paths.NETWORK)) for name in ("sgd one", "sgd two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    histories = [by_sgd.history(name) for name in ("sgd one", "sgd two")]
    np.testing.assert_allclose(*(history["loss"] for history in histories), rtol=0, atol=1e-4)
    np.testing.assert_allclose(*(history["dice_mean"] for history in histories), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": OptimizerConfig(average=0.8)},
        {"optimizer": OptimizerConfig(kind="sgd", momentum=0.9), "frozen_steps": 6},
        {"architecture": "fcn8s", "options": {"width": 2, "dropout": 0.5}},
    ],
)
def test_every_part_of_a_training_is_in_its_state(tmp_path, monkeypatch, settings):
    settings = {"max_steps": 12, "validate_every": 4, "learning_rate": 0.01} | settings
    whole, _, table = train_in(tmp_path / "whole", **settings)
    write = history.History.write

    def fail_after(self, records, *rest):
        write(self, records, *rest)
        if len(records) == 2:
            raise RuntimeError("pulled the plug")

    monkeypatch.setattr(history.History, "write", fail_after)
    with pytest.raises(RuntimeError):
        train_in(tmp_path / "cut", **settings)
    monkeypatch.setattr(history.History, "write", write)
    resumed, _, table_of_both = train_in(tmp_path / "cut", **settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert list(table["loss"]) == list(table_of_both["loss"])
    assert list(table["step"]) == [4, 8, 12]


def test_a_state_is_only_read_by_its_own_training(tmp_path):
    path = tmp_path / "state.safetensors"
    state = TrainingState(step=3, elapsed_s=1.5, history=[{"step": 3, "dice_mean": float("nan")}])
    state.tensors = {"network": {"a.b": torch.arange(6.0).reshape(2, 3)}, "optimizer": {"0.step": torch.tensor(3.0)}}
    write_state(path, "mine", state)
    again = read_state(path, "mine")
    assert (again.step, again.elapsed_s, again.chosen) == (3, 1.5, None)
    assert torch.equal(again.tensors["network"]["a.b"], state.tensors["network"]["a.b"])
    assert torch.equal(again.tensors["optimizer"]["0.step"], torch.tensor(3.0))
    assert read_state(path, "another") is None
    assert read_state(tmp_path / "none", "mine") is None
    path.write_bytes(path.read_bytes()[:-5])
    assert read_state(path, "mine") is None


def test_a_finished_training_is_not_repeated(tmp_path, monkeypatch):
    """Killed after its last step, before its network was written."""
    first, best, _ = train_in(tmp_path, max_steps=4, validate_every=4)
    monkeypatch.setattr(training.Learner, "step", lambda *_, **__: pytest.fail("another step"))
    second, again, _ = train_in(tmp_path, max_steps=4, validate_every=4)
    assert best == again
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
