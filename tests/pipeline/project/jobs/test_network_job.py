"""A job that makes a network ends well too; its ledger says why there is no network."""

from pathlib import Path

import pytest

from pipeline.base.errors import SlidemillError, StorageError
from pipeline.project.jobs.batch_job import Made
from pipeline.project.jobs.ledger import network_ledger_path, read_ledger
from pipeline.project.jobs.network_job import inputs_of_networks, make_network, state_of_pairs
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.ensembles import EnsembleConfig
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import CombineConfig, ObjectsConfig

CONFIG = CombineConfig(ensemble=EnsembleConfig(members=["a"]))
OF_IMAGES = ObjectsConfig(classes=["background", "object"], image=ImageConfig())


def run(make, stage="combine", model="net", **more):
    config = CONFIG if stage == "combine" else OF_IMAGES
    make_network(stage, model, config, make, made_from=lambda: {"x": "1"}, **more)
    return read_ledger(network_ledger_path(stage, model))


def refuse():
    raise SlidemillError("a.tif: no labels; add them")


@pytest.mark.usefixtures("in_folder")
def test_a_failure_is_an_outcome_and_what_follows_it_is_not_done():
    failure = run(refuse, "weigh")["net"].failure
    assert (failure.stage, failure.message) == ("weigh", "a.tif: no labels; add them")
    assert failure.log == "logs/weigh/net.log"
    assert run(lambda: pytest.fail("it was done"), "train", after=[("weigh", "net")]) == {}
    assert run(lambda: pytest.fail("it was done"), "combine", "both", after=[("train", "net")]) == {}
    assert run(lambda: Made(files=[Path("w")]), "weigh")["net"].is_done
    made = run(lambda: Made(files=[Path("n")], found={"warnings": ["doubt"]}), "train", after=[("weigh", "net")])["net"]
    assert (made.files, made.found) == (["n"], {"warnings": ["doubt"]})


@pytest.mark.usefixtures("in_folder")
def test_what_cannot_be_written_ends_the_job():
    def full():
        raise StorageError("no space left")

    with pytest.raises(StorageError):
        run(full)


@pytest.mark.usefixtures("in_folder")
def test_inputs_that_cannot_be_found_are_a_failure_of_the_network():
    make_network("train", "net", OF_IMAGES, refuse, made_from=refuse)
    assert "no labels" in read_ledger(network_ledger_path("train", "net"))["net"].failure.message


def test_inputs_are_known_by_path_size_and_time(tmp_path):
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_text("x")
    one = TrainingPair(name="a", image=tmp_path / "a.tif", labels=tmp_path / "a.png")
    other = TrainingPair(name="b", image=tmp_path / "b.tif", labels=tmp_path / "b.png")
    assert state_of_pairs([one, other]) == state_of_pairs([other, one]) != state_of_pairs([one])
    before = state_of_pairs([one])
    (tmp_path / "a.png").write_text("labels")
    assert state_of_pairs([one]) != before
    (tmp_path / "c.zarr" / "0").mkdir(parents=True)
    folder = TrainingPair(name="c", image=tmp_path / "c.zarr", labels=tmp_path / "a.png")
    before = state_of_pairs([folder])
    (tmp_path / "c.zarr" / "0" / "0").write_text("a chunk")
    assert state_of_pairs([folder]) != before
    assert list(inputs_of_networks([tmp_path / "a.tif", tmp_path / "none"]).values())[1] == ""
