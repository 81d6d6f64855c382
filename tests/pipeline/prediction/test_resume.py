"""A prediction does not depend on interruptions, nor on the slides that share its job."""

import errno
import zipfile
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base.errors import SlideError, StorageError
from pipeline.base.files import unfinished
from pipeline.networks.weights_file import load_network
from pipeline.prediction import devices, loop, windows
from pipeline.prediction.results import Target
from pipeline.prediction.resume import Progress, resume_after
from pipeline.prediction.store import PredictionWriter, open_prediction
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TileConfig
from pipeline.tiling.grid import Grid
from pipeline.tiling.plan_slide import plan_slide
from tests.support.networks import network_with_batch_stats, write_network

SHAPES = {"a": (330, 150), "b": (50, 60), "c": (50, 60), "damaged": (200, 70), "d": (70, 300)}
NETWORKS = {"unet": {"width": 2, "depth": 2}, "pspnet": {"width": 2}}
COUNTS = ("pixels", "differing_px", "compared_px", "uncertain", "tile_mismatch")


class Job:
    """Slides of several sizes, one of them damaged, planned in tiles of 64 px, and their prediction."""

    def __init__(self, folder, name):
        self.folder = folder
        self.network = network_with_batch_stats(name, num_classes=3, **NETWORKS[name])
        _, card = load_network(write_network(folder, name, **NETWORKS[name]))
        self.card = replace(card, heads=["distance"])
        config = TileConfig(image=ImageConfig(), tile_px=64, mirror_px=16, skip_glass=False)
        generator = np.random.default_rng(1)
        self.plans = {}
        for sample, shape in SHAPES.items():
            slide = folder / f"{sample}.tif"
            tifffile.imwrite(slide, generator.integers(0, 255, shape).astype(np.uint8), rowsperstrip=8)
            self.plans[sample] = plan_slide(slide, self.card, 1000, config)
        damaged = folder / "damaged.tif"
        damaged.write_bytes(damaged.read_bytes()[:-9000])

    def path(self, sample, name):
        return self.folder / name / f"{sample}.zarr.zip"

    def journal(self, sample, name):
        return unfinished(self.path(sample, name))

    def predict(self, name, samples=tuple(SHAPES), *, identity="1", done=(), devices=1):
        """Predict into a folder; yield what the loop is through with."""
        targets = [
            Target(sample=sample, plan=self.plans[sample], path=self.path(sample, name), identity=identity)
            for sample in samples
            if sample not in done
        ]
        kept = {"probabilities": True, "heads": True}
        yield from loop.segment_slides([self.network] * devices, self.card, targets, **kept, memory_mb=1000, threads=1)

    def results(self, name, outcomes):
        """Everything that must not differ: pixels, errors, counts."""
        return {sample: self.result(sample, name, outcome) for sample, outcome in outcomes}

    def result(self, sample, name, outcome):
        if isinstance(outcome, SlideError):
            assert not self.path(sample, name).exists()
            return str(outcome)
        with zipfile.ZipFile(self.path(sample, name)) as archive:
            assert len(set(archive.namelist())) == len(archive.namelist())
        with open_prediction(self.path(sample, name)) as group:
            pixels = [group[name][:].tobytes() for name in ("labels", "probabilities", "heads")]
        return pixels, {count: getattr(outcome, count) for count in COUNTS}


@pytest.fixture(scope="module", params=NETWORKS)
def job(request, tmp_path_factory):
    made = Job(tmp_path_factory.mktemp(request.param), request.param)
    patch = pytest.MonkeyPatch()
    patch.setattr("pipeline.prediction.loop.batch_limit_px", lambda *_: 3 * 96 * 96)  # several batches for a slide
    patch.setattr("pipeline.prediction.forward._UNCERTAIN", 0.02)  # an untrained network is uncertain everywhere
    made.whole = made.results("whole", made.predict("whole"))
    yield made
    patch.undo()


class PulledPlugError(Exception):
    """A power cut."""


def pull_after(patch, records):
    """Interrupt the next job when it has made so many records."""
    record, made = PredictionWriter.record, []

    def counted(writer, progress):
        record(writer, progress)
        made.append(progress.windows)
        if len(made) == records:
            raise PulledPlugError

    patch.setattr(PredictionWriter, "record", counted)
    return made


def interrupt(job, name, records, outcomes, **how):
    """Predict what has no outcome yet, and fail after so many records; return whether there were as many."""
    with pytest.MonkeyPatch.context() as patch:
        pull_after(patch, records)
        try:
            outcomes.extend(job.predict(name, done=dict(outcomes), **how))
        except PulledPlugError:
            return True
    return False


def test_the_slides_are_the_cases_to_test(job):
    assert "cut short" in job.whole["damaged"]
    counts = job.whole["a"][1]
    assert 0 < counts["uncertain"] < 1
    assert counts["pixels"] == 330 * 150
    is_blended = bool(job.plans["a"].grid.overlap_px)
    assert (counts["tile_mismatch"] is not None) == (counts["compared_px"] > 0) == is_blended


@pytest.mark.parametrize("samples", [["d"], ["b"], ["a"], ["c", "d", "b", "damaged", "a"], ["damaged", "b", "d"]])
def test_a_prediction_does_not_depend_on_who_shares_its_job(job, tmp_path_factory, samples):
    name = tmp_path_factory.mktemp("shared").name
    found = job.results(name, job.predict(name, samples))
    assert found == {sample: job.whole[sample] for sample in samples}


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("fails", [False, True])
def test_several_devices_make_what_one_makes(job, monkeypatch, tmp_path_factory, count, fails):
    """Also after an interruption, and if one of them fails."""
    name, outcomes = tmp_path_factory.mktemp("several").name, []
    score, broken = devices.Device.score, []

    def fail_once(device, batch):
        if (fails and device in broken) or (fails and not broken):
            broken.append(device)
            raise RuntimeError("the device fell off the bus")
        return score(device, batch)

    monkeypatch.setattr(devices.Device, "score", fail_once)
    assert interrupt(job, name, 3, outcomes, devices=count)
    broken.clear()
    outcomes.extend(job.predict(name, done=dict(outcomes), devices=count))
    assert job.results(name, outcomes) == job.whole
    assert len(broken) == fails


@pytest.mark.slow
def test_an_interruption_at_any_record_does_not_change_the_results(job):
    records = 0
    is_interrupted = True
    while is_interrupted:
        records += 1
        name, outcomes = f"cut{records}", []
        is_interrupted = interrupt(job, name, records, outcomes)
        outcomes.extend(job.predict(name, done=dict(outcomes)))
        assert job.results(name, outcomes) == job.whole
        assert list((job.folder / name).glob(".partial-*")) == []
    assert records > 10


@pytest.mark.slow
def test_many_interruptions_do_not_change_the_results(job):
    outcomes, records = [], 2
    while interrupt(job, "again", records, outcomes):
        records += 1  # with so few, a row of blended tiles may never be complete
    assert job.results("again", outcomes) == job.whole


@pytest.mark.slow
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), again=st.floats(0, 1))
def test_a_journal_that_is_cut_off_anywhere_does_not_change_the_result(job, tmp_path_factory, share, again):
    """As after a kill: there is no table of contents, and perhaps half an entry."""
    name = tmp_path_factory.mktemp("torn").name
    for records, kept in ((4, share), (3, again)):
        with pytest.MonkeyPatch.context() as patch:
            pull_after(patch, records)
            with pytest.raises(PulledPlugError):
                list(job.predict(name, ["a"]))
        journal = job.journal("a", name)
        content = journal.read_bytes()
        journal.write_bytes(content[: round(kept * len(content))])
    assert job.results(name, job.predict(name, ["a"])) == {"a": job.whole["a"]}


def test_slides_are_closed_at_once_when_a_prediction_fails(job, monkeypatch, tmp_path_factory):
    """And not when the garbage collector finds them, which may be in any thread."""
    opened, open_slide = [], windows.open_slide

    @contextmanager
    def noted(path, **how):
        opened.append(path)
        try:
            with open_slide(path, **how) as slide:
                yield slide
        finally:
            opened.remove(path)

    monkeypatch.setattr(windows, "open_slide", noted)
    pull_after(monkeypatch, 2)
    with pytest.raises(PulledPlugError) as pulled:
        for _ in job.predict(tmp_path_factory.mktemp("failing").name, ["a"]):
            assert opened
    assert (pulled.value.args, opened) == ((), [])  # its frames are alive, and with them all that they hold


@pytest.mark.parametrize("tries", [1, 3])
def test_recorded_windows_do_not_go_through_the_network_again(job, monkeypatch, tmp_path_factory, tries):
    """Except for the windows around the last written row of tiles, if tiles are blended."""
    name, scored, outcomes = tmp_path_factory.mktemp("once").name, [], []
    score = devices.Device.score

    def count(device, batch):
        scored.extend((place.sample, place.tile.write.top, place.tile.write.left) for place in batch.places)
        return score(device, batch)

    monkeypatch.setattr(devices.Device, "score", count)
    for _ in range(tries):
        assert interrupt(job, name, 2, outcomes)
    outcomes.extend(job.predict(name, done=dict(outcomes)))
    assert job.results(name, outcomes) == job.whole
    twice = len(scored) - len(set(scored))
    at_most = 3 * 3 + 3 if job.plans["a"].grid.overlap_px else 3  # three rows of three tiles, and one batch
    assert twice <= tries * at_most


def test_a_journal_of_other_inputs_is_not_continued(job, tmp_path_factory, monkeypatch):
    name = tmp_path_factory.mktemp("other").name
    assert interrupt(job, name, 3, [])
    made = pull_after(monkeypatch, None)
    found = job.results(name, job.predict(name, ["a"], identity="2"))
    assert 0 < made[0] <= 3
    assert found == {"a": job.whole["a"]}


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_slides_may_share_batches_of_windows(job, monkeypatch, tmp_path_factory, is_interrupted):
    """As on a GPU: then logits may differ by rounding, and nothing else does."""
    name, outcomes, samples = tmp_path_factory.mktemp("mixed").name, [], []
    read, score = loop.read_batches, devices.Device.score

    def count(device, batch):
        samples.append({place.sample for place in batch.places})
        return score(device, batch)

    monkeypatch.setattr(loop, "read_batches", lambda slides, **how: read(slides, **how | {"mixed": True}))
    monkeypatch.setattr(loop, "batch_limit_px", lambda *_: 40 * 96 * 96)
    monkeypatch.setattr(devices.Device, "score", count)
    assert not is_interrupted or interrupt(job, name, 2, outcomes)
    outcomes.extend(job.predict(name, done=dict(outcomes)))
    assert {"b", "c"} in samples
    assert dict(outcomes).keys() == job.whole.keys()
    for sample in ("a", "b", "c", "d"):
        with open_prediction(job.path(sample, name)) as group, open_prediction(job.path(sample, "whole")) as whole:
            assert (group["labels"][:] != whole["labels"][:]).mean() < 1e-3


def test_slides_are_complete_one_after_the_other(job, tmp_path_factory):
    """The outcome of a slide comes when its file is there, not at the end."""
    name = tmp_path_factory.mktemp("stream").name
    stream = job.predict(name, ["b", "a", "d"])
    sample, _ = next(stream)
    assert (sample, job.path("b", name).exists(), job.path("d", name).exists()) == ("b", True, False)
    assert [sample for sample, _ in stream] == ["a", "d"]


def test_a_consumer_that_fails_can_continue_later(job, tmp_path_factory):
    name = tmp_path_factory.mktemp("consumer").name
    stream = job.predict(name)
    first = next(stream)
    stream.close()
    assert job.results(name, [first, *job.predict(name, done=[first.sample])]) == job.whole


def test_a_full_disk_ends_the_job_and_costs_only_what_is_not_recorded(job, tmp_path_factory):
    name, outcomes, written = tmp_path_factory.mktemp("full").name, [], []
    write = PredictionWriter.write

    def until_full(writer, region, *values):
        written.append(region)
        if len(written) == 27:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(writer, region, *values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictionWriter, "write", until_full)
        with pytest.raises(StorageError, match="/d.zarr.zip: cannot be written: No space left"):
            outcomes.extend(job.predict(name))
    assert job.path("a", name).exists()
    assert job.journal("d", name).exists()
    outcomes = [("a", job.predict(name, ["a"])), *job.predict(name, done=["a"])]
    assert job.results(name, outcomes[1:]) == {sample: job.whole[sample] for sample in job.whole if sample != "a"}


def test_the_seconds_of_the_slides_are_those_of_the_job(job, tmp_path_factory):
    name = tmp_path_factory.mktemp("seconds").name
    outcomes = dict(job.predict(name, ["a", "b", "d"]))
    for measured in outcomes.values():
        assert 0 < measured.network_s <= measured.wall_s
        assert measured.network_s + measured.reading_s + measured.writing_s <= measured.wall_s * (1 + 1e-9)
        assert asdict(measured)["probabilities"] is True


def test_where_a_slide_continues():
    """Rows of three tiles, in batches of two windows; three rows were written, the third is needed again."""
    exact = Grid(shape=(640, 192), tile=(64, 64), halo_px=32, surround_px=32, stride_px=16)
    blended = Grid(shape=(640, 192), tile=(64, 64), halo_px=32, surround_px=32, stride_px=16, overlap_px=32)
    records = [Progress(windows=windows, rows=max(0, windows // 3 - 1)) for windows in (2, 4, 6, 8, 10, 12)]
    assert resume_after([], exact) == resume_after([], blended) == Progress()
    assert resume_after(records, exact) == records[-1]
    assert resume_after(records, blended) == Progress(windows=6, rows=3)
    assert resume_after(records[:4], blended) == Progress(windows=0, rows=1)
    assert resume_after([*records, Progress(windows=8, rows=3)], blended) == Progress(windows=6, rows=3)
