"""A job ends well when every sample of its batch has an outcome, and makes only what is not there."""

import os
import signal
from pathlib import Path

import pytest

from pipeline.base import paths
from pipeline.base.errors import Failure, SlideError, StorageError
from pipeline.project.drop.drop_folder import Sample, write_samples
from pipeline.project.jobs.batch_job import Made, batch_job
from pipeline.project.jobs.ledger import (
    Entry,
    LedgerWriter,
    ledger_path,
    network_ledger_path,
    read_ledger,
    write_ledger,
)
from pipeline.settings.schema import parse_settings
from pipeline.settings.stage_sections import StitchConfig, TileConfig

BATCH = "plate/0001"
NAMES = [f"plate/{number}" for number in range(6)]
TILE = TileConfig(image=parse_settings({}, source="").image, tile_px=None, mirror_px=16, skip_glass=False)
STITCH = StitchConfig(classes=["a", "b"])


@pytest.fixture
def project(in_folder):
    write_slides()
    (in_folder / "net").mkdir()
    for name in ("model.safetensors", "model.json"):
        (in_folder / "net" / name).write_text(name)
    return in_folder


def write_slides(**changed):
    samples = {name: Sample(slide=f"{name}.tif", version="1 bytes, 2 ns", batch=BATCH) for name in NAMES}
    samples["other"] = Sample(slide="other.tif", version="1 bytes, 2 ns", batch="0001")
    for name, version in changed.items():
        samples[f"plate/{name[1:]}"] = Sample(slide=f"{name}.tif", version=version, batch=BATCH)
    write_samples(samples, "snakemake", "")


def make(task):
    """Write the number of the attempt."""
    made = task.path(paths.PLAN)
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(made.read_text() + "x" if made.exists() else "x")
    return Made(files=[made], found={"pixels": 3})


def make_or_fail(task):
    if task.sample == "plate/1":
        raise SlideError("plate/1.tif: empty; replace it")
    if task.sample == "plate/2":
        raise ZeroDivisionError("a bug")
    if task.sample == "plate/3":
        os.kill(os.getpid(), signal.SIGSEGV)
    return make(task)


def full(task):
    raise StorageError(f"{task.sample}: no space left")


def take_memory(task):
    """Take as much as two samples together may, but one alone."""
    if task.sample in ("plate/1", "plate/4"):
        bytearray(1_700_000_000)
    return make(task)


def tile(function=make, *, threads=2, config=TILE):
    with batch_job("tile", config, model="net", batch=BATCH, network=Path("net/model.safetensors")) as job:
        tasks = [task.sample for task in job.tasks]
        job.work_through(function, threads=threads, memory_mb=1000)
    return tasks


def attempts():
    return {name: len(Path(paths.PLAN.format(model="net", sample=name)).read_text()) for name in NAMES}


def entries():
    return read_ledger(ledger_path("tile", "net", BATCH))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("threads", [1, 2, 9])
def test_every_sample_of_the_batch_has_an_entry(threads):
    assert tile(threads=threads) == NAMES
    assert list(entries()) == NAMES
    assert all(entry.is_done and entry.found == {"pixels": 3} for entry in entries().values())


@pytest.mark.usefixtures("project")
def test_a_bad_sample_a_bug_and_a_crash_cost_a_sample_each_and_are_tried_again_alone():
    tile(make_or_fail)
    found = entries()
    assert [name for name, entry in found.items() if entry.is_done] == ["plate/0", "plate/4", "plate/5"]
    log = "logs/tile/net/plate/0001.log"
    assert found["plate/1"].failure == Failure("tile", "SlideError", "plate/1.tif: empty; replace it", log)
    assert found["plate/2"].failure.message == "a bug in Slidemill: ZeroDivisionError('a bug'); see the log"
    assert "its process ended by SIGSEGV" in found["plate/3"].failure.message
    assert tile() == ["plate/1", "plate/2", "plate/3"]
    assert all(entry.is_done for entry in entries().values())
    assert attempts() == dict.fromkeys(NAMES, 1)


@pytest.mark.usefixtures("project")
def test_a_sample_that_needs_more_than_its_share_of_memory_is_made_alone():
    tile(take_memory)
    assert all(entry.is_done for entry in entries().values())
    assert attempts() == dict.fromkeys(NAMES, 1)


@pytest.mark.usefixtures("project")
def test_what_is_known_and_there_is_kept():
    tile()
    before = entries()
    assert tile() == []
    assert entries() == before
    Path(paths.PLAN.format(model="net", sample="plate/4")).unlink()
    assert tile() == ["plate/4"]
    write_slides(_2="5 bytes, 1 ns")
    assert tile() == ["plate/2"]
    assert attempts() == dict.fromkeys(NAMES, 1) | {"plate/2": 2}


def test_other_settings_and_another_network_make_all_again(project):
    tile()
    assert tile(config=TILE.model_copy(update={"tile_px": 64})) == NAMES
    assert tile() == NAMES
    (project / "net" / "model.safetensors").write_text("other weights")
    assert tile() == []  # plans do not depend on weights
    (project / "net" / "model.json").write_text("another stride")
    assert tile() == NAMES


@pytest.mark.usefixtures("project")
def test_a_job_that_was_stopped_goes_on_where_it_was(monkeypatch):
    def stop(writer, sample, entry):
        if len(writer.entries) == 3:
            raise KeyboardInterrupt
        record(writer, sample, entry)

    record = LedgerWriter.record
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LedgerWriter, "record", stop)
        tile(threads=1)
    assert entries() == {}
    assert tile() == NAMES[3:]
    assert list(entries()) == NAMES
    assert all(entry.is_done for entry in entries().values())


@pytest.mark.usefixtures("project")
def test_a_full_disk_is_the_fault_of_no_sample():
    with pytest.raises(StorageError):
        tile(full, threads=1)
    assert entries() == {}


@pytest.mark.usefixtures("project")
def test_a_stage_continues_what_the_one_before_has_done():
    with write_ledger(ledger_path("predict", "net", BATCH), stage="predict", model="net") as writer:
        writer.record("plate/0", Entry(fingerprint="1", found={"uncertain": 0.5}))
        writer.record("plate/1", Entry(fingerprint="2", failure=Failure("predict", "SlideError", "x")))
    with batch_job("stitch", STITCH, model="net", batch=BATCH) as job:
        (task,) = job.tasks
        assert (task.sample, task.before.found) == ("plate/0", {"uncertain": 0.5})
        job.work_through(make, threads=2, memory_mb=1000)
    assert list(read_ledger(ledger_path("stitch", "net", BATCH))) == ["plate/0"]


@pytest.mark.usefixtures("project")
def test_an_old_network_is_not_taken_for_one_whose_training_failed():
    network = Path(paths.NETWORK.format(model="net"))
    network.parent.mkdir(parents=True)
    network.write_text("trained yesterday")
    with write_ledger(network_ledger_path("train", "net"), stage="train", model="net") as writer:
        writer.record("net", Entry(fingerprint="1", failure=Failure("train", "SlidemillError", "no labels")))
    with batch_job("tile", TILE, model="net", batch=BATCH, network=network) as job:
        assert job.tasks == []
    with write_ledger(network_ledger_path("train", "net"), stage="train", model="net") as writer:
        writer.record("net", Entry(fingerprint="1"))
    with batch_job("tile", TILE, model="net", batch=BATCH, network=network) as job:
        assert len(job.tasks) == len(NAMES)
        job.fail_all(SlideError("x"))
