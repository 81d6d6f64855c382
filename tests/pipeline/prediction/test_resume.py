"""A prediction that was interrupted anywhere continues, with the results of an uninterrupted one."""

import logging
import zipfile

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base.errors import SlidemillError
from pipeline.prediction import loop as segmentation
from pipeline.prediction.measurements import read_speed
from pipeline.prediction.store import PredictionWriter, open_prediction
from pipeline.project.stage_settings import stage_config
from pipeline.settings.schema import Settings
from tests.support.commands import run_command
from tests.support.networks import CLASSES, write_network
from tests.support.slide_files import write_batch

SAMPLES = ["batch/a", "batch/b", "batch/c", "batch/d"]
NETWORKS = {"unet": {"width": 2, "depth": 2}, "pspnet": {"width": 2}}
COUNTS = ("pixels", "differing_px", "compared_px", "uncertain", "mismatch")


class Batch:
    """Slides of several sizes, one of them damaged, planned in tiles of 64 px, and their prediction."""

    def __init__(self, folder, name):
        self.folder = folder
        self.settings = Settings(
            classes=CLASSES,
            tiling={"tile_px": 64, "skip_glass": False},
            prediction={"probabilities": True},
            models={"net": {"checkpoint": str(folder / "model.safetensors")}},
        )
        self.weights = write_network(folder, name, **NETWORKS[name])
        generator = np.random.default_rng(1)
        for sample, shape in zip(SAMPLES, [(330, 150), (50, 60), (200, 70), (70, 300)], strict=True):
            self.slide(sample).parent.mkdir(exist_ok=True)
            tifffile.imwrite(self.slide(sample), generator.integers(0, 255, shape).astype(np.uint8), rowsperstrip=8)
            self.plan(sample)
        damaged = bytearray(self.slide("batch/c").read_bytes())
        self.slide("batch/c").write_bytes(damaged[:-9000])
        write_batch(folder / "slides.json", "batch", SAMPLES)

    def slide(self, sample):
        return self.folder / f"{sample}.tif"

    def plan(self, sample):
        files = {"slide": self.slide(sample), "model": self.weights.with_name("model.json")}
        assert self.run("tile", sample=sample, **files, output=self.folder / "plans" / f"{sample}.json") == 0

    def run(self, stage, **flags):
        return run_command(stage, **flags, memory_mb=1000, config=stage_config(self.settings, stage, "net"))

    def predict(self, name="batch"):
        """Predict; return the exit status."""
        inputs = {"network": self.weights, "plans": self.folder / "plans", "slides": self.folder / "slides.json"}
        outputs = {"output": self.output(name), "speed": self.folder / f"{name}.json"}
        return self.run("predict", **inputs, batch="batch", **outputs, threads=1)

    def interrupt(self):
        """Predict, and fail before the end."""
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(PredictionWriter, "finish", fail)
            self.predict("cut")

    def output(self, name="batch"):
        return self.folder / f"{name}.zarr.zip"

    def journal(self, name="batch"):
        return self.folder / f".partial-{name}.zarr.zip" / f"{name}.zarr.zip"

    def result(self, name="batch"):
        """Everything that must equal an uninterrupted run: pixels, errors, counts."""
        with zipfile.ZipFile(self.output(name)) as archive:
            assert len(set(archive.namelist())) == len(archive.namelist())
        found = {}
        for sample in SAMPLES:
            try:
                with open_prediction(self.output(name), sample) as group:
                    found[sample] = group["labels"][:].tobytes(), group["probabilities"][:].tobytes()
            except SlidemillError as error:
                found[sample] = str(error)
        speed = read_speed(self.folder / f"{name}.json")
        return found | {count: getattr(speed, count) for count in COUNTS}


@pytest.fixture(scope="module", params=NETWORKS)
def batch(request, tmp_path_factory):
    made = Batch(tmp_path_factory.mktemp(request.param), request.param)
    patch = pytest.MonkeyPatch()
    patch.setattr("pipeline.prediction.loop.batch_limit_px", lambda *_: 3 * 96 * 96)  # several batches for a slide
    patch.setattr("pipeline.prediction.forward._UNCERTAIN", 0.02)  # an untrained network is uncertain everywhere
    assert made.predict() == 0
    made.whole = made.result()
    yield made
    patch.undo()


def fail(*_):
    raise RuntimeError("pulled the plug")


@pytest.fixture(scope="module")
def journal(batch):
    """The bytes that are there when all is predicted and nothing is finished."""
    batch.interrupt()
    assert not batch.output("cut").exists()
    return batch.journal("cut").read_bytes()


def test_the_batch_has_the_cases_to_test(batch):
    assert "cut short" in batch.whole["batch/c"]
    assert 0 < batch.whole["uncertain"]["batch/a"] < 1
    assert (batch.whole["compared_px"] > 0) == bool(batch.whole["mismatch"])


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), again=st.floats(0, 1))
@pytest.mark.slow
def test_two_interruptions_anywhere_do_not_change_the_results(batch, journal, share, again):
    batch.journal("cut").parent.mkdir(exist_ok=True)
    batch.journal("cut").write_bytes(journal[: round(share * len(journal))])
    batch.interrupt()
    content = batch.journal("cut").read_bytes()
    batch.journal("cut").write_bytes(content[: round(again * len(content))])
    assert batch.predict("cut") == 0
    assert batch.result("cut") == batch.whole
    assert not batch.journal("cut").parent.exists()


@pytest.mark.parametrize("tries", [1, 3])
def test_recorded_windows_do_not_go_through_the_network_again(batch, monkeypatch, tries):
    """Except for the windows around the last written row of tiles, if tiles are blended."""
    record, scored = PredictionWriter.record, []
    original = segmentation._score

    def count(network, windows, keep):
        scored.extend((place.sample, place.tile.write.top, place.tile.write.left) for place in windows.places)
        return original(network, windows, keep)

    def record_two(writer, one):
        record(writer, one)
        if writer._next >= limit:
            fail()

    monkeypatch.setattr(segmentation, "_score", count)
    for number in range(1, tries + 1):
        limit = 2 * number
        monkeypatch.setattr(PredictionWriter, "record", record_two)
        with pytest.raises(RuntimeError):
            batch.predict("tried")
    monkeypatch.setattr(PredictionWriter, "record", record)
    assert batch.predict("tried") == 0
    assert batch.result("tried") == batch.whole
    twice = len(scored) - len(set(scored))
    at_most = 3 * 3 + 3 if batch.whole["mismatch"] else 3  # three rows of three tiles, and one batch
    assert twice <= tries * at_most


@pytest.mark.parametrize("change", ["settings", "weights", "slide"])
def test_a_journal_of_other_inputs_is_not_continued(batch, journal, caplog, monkeypatch, change):
    batch.journal("cut").parent.mkdir(exist_ok=True)
    batch.journal("cut").write_bytes(journal)
    plan = batch.folder / "plans" / "batch" / "b.json"
    before = plan.read_text()
    if change == "settings":
        labels_alone = batch.settings.prediction.model_copy(update={"probabilities": False})
        monkeypatch.setattr(batch, "settings", batch.settings.model_copy(update={"prediction": labels_alone}))
    elif change == "weights":
        monkeypatch.setattr("pipeline.stages.predict.sha256", lambda _: "other weights")
    else:
        plan.write_text(before.replace('"slide_sha256": "', '"slide_sha256": "0'))
    with caplog.at_level(logging.INFO):
        assert batch.predict("cut") == 0
    plan.write_text(before)
    assert "prediction starts from the beginning" in caplog.text
    assert "continuing after" not in caplog.text
