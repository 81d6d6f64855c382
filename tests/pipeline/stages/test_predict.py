"""The stage predict: every sample of a batch has an outcome, and what is up to date is not predicted again."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from pipeline.__main__ import main
from pipeline.base import paths
from pipeline.base.errors import ConfigError, StorageError
from pipeline.base.files import read_json, sha256, write_json
from pipeline.networks.model_card import card_path
from pipeline.prediction.measurements import Measurements
from pipeline.prediction.store import open_prediction
from pipeline.project.jobs.ledger import ledger_path
from pipeline.stages import predict
from pipeline.stages.tile import pixel_size_warning
from pipeline.tiling.grid import Grid
from pipeline.tiling.memory_budget import largest_window_px
from tests.support.jobs import BATCH, MODEL, Jobs
from tests.support.networks import CARD, network_with_batch_stats, write_network

SAMPLES = ["plate/a", "plate/b", "plate/c"]
NETWORK = Path(paths.NETWORK.format(model=MODEL))
PLAN = Path(paths.PLAN.format(model=MODEL, sample="plate/b"))
PROBABILITIES = {"prediction": {"probabilities": True}}


@pytest.fixture
def jobs(in_folder, generator):
    """A batch of three slides that are planned, and an untrained network."""
    write_network(NETWORK.parent, width=2, depth=2)
    (in_folder / "plate").mkdir()
    jobs = Jobs(NETWORK, memory_mb=1000, threads=1, prediction={"precision": "float32"})
    for sample in SAMPLES:
        put(jobs, sample, generator)
    jobs.run("tile")
    return jobs


def put(jobs, sample, generator):
    tifffile.imwrite(f"{sample}.tif", generator.integers(0, 255, (90, 120)).astype(np.uint8))
    jobs.put(sample, Path(f"{sample}.tif"))


def test_every_sample_has_a_file_and_its_measurements(jobs):
    entries = jobs.run("predict")
    assert sorted(entries) == SAMPLES
    for sample, entry in entries.items():
        assert entry.files == [str(jobs.path(paths.PREDICTION, sample))]
        assert entry.found["weights_sha256"] == sha256(NETWORK)
        measured = Measurements.from_found(entry.found)
        assert (measured.pixels, measured.probabilities, measured.device) == (90 * 120, False, "cpu")
        assert (measured.differing_px, measured.compared_px, measured.tile_mismatch) == (0, 0, None)
        assert 0 < measured.network_s < measured.wall_s == pytest.approx(entry.seconds, abs=1e-3)
        with open_prediction(jobs.path(paths.PREDICTION, sample)) as group:
            assert group["labels"].shape == (90, 120)
            assert group.attrs["provenance"]["sha256"] == {"weights": sha256(NETWORK)}


def test_a_sample_that_is_up_to_date_is_kept_and_no_network_is_loaded(jobs, monkeypatch):
    before = jobs.run("predict")
    monkeypatch.setattr(predict, "load_network", lambda *_, **__: pytest.fail("a network was loaded"))
    assert jobs.run("predict") == before


@pytest.mark.parametrize("change", ["file", "slide"])
def test_only_what_changed_is_predicted_again(jobs, generator, change):
    jobs.run("predict")
    times = {sample: jobs.path(paths.PREDICTION, sample).stat().st_mtime_ns for sample in SAMPLES}
    if change == "file":
        jobs.path(paths.PREDICTION, "plate/b").unlink()
    else:
        put(jobs, "plate/b", generator)
    jobs.run("tile", "predict")
    again = [sample for sample in SAMPLES if jobs.path(paths.PREDICTION, sample).stat().st_mtime_ns != times[sample]]
    assert again == ["plate/b"]


def test_labels_are_predicted_again_if_probabilities_are_needed_but_not_the_other_way_round(jobs):
    jobs.run("predict")
    jobs.configure(**PROBABILITIES)
    with_probabilities = jobs.run("predict")
    with open_prediction(jobs.path(paths.PREDICTION, "plate/a")) as group:
        assert group["probabilities"].shape == (2, 90, 120)
    assert all(entry.found["probabilities"] for entry in with_probabilities.values())
    jobs.configure()
    assert jobs.run("predict") == with_probabilities


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: Path("plate/b.tif").write_bytes(b""), "plate/b.tif: cannot be read"),
        (lambda: Path("plate/b.tif").unlink(), "plate/b.tif: the file no longer exists"),
        (PLAN.unlink, "b.json: not a readable JSON file"),
        (lambda: PLAN.write_text("{}"), "b.json: not a plan of this version"),
        (lambda: add_channel(PLAN), "stride 4, 2 channels"),
    ],
)
def test_a_sample_that_cannot_be_predicted_fails_alone(jobs, spoil, message):
    spoil()
    entries = jobs.run("predict")
    assert [name for name, entry in entries.items() if entry.is_done] == ["plate/a", "plate/c"]
    failure = entries["plate/b"].failure
    assert message in failure.message
    assert (failure.stage, failure.log) == ("predict", "logs/predict/net/plate/0001.log")
    assert not jobs.path(paths.PREDICTION, "plate/b").exists()
    assert list(Path("results").rglob(".partial-*")) == []


def add_channel(plan):
    content = read_json(plan)
    content["view"]["channels"].append(1)
    write_json(plan, content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: NETWORK.write_bytes(b"not weights"), "weights cannot be loaded"),
        (lambda: card_path(NETWORK).write_text("{}"), "not a model.json of Slidemill"),
        (lambda: shutil.rmtree(NETWORK.parent), "model.json: not a readable JSON file"),
    ],
)
def test_a_network_that_cannot_be_loaded_fails_every_sample(jobs, spoil, message):
    spoil()
    entries = jobs.run("predict")
    assert sorted(entries) == SAMPLES
    assert all(message in entry.failure.message for entry in entries.values())


def test_an_error_of_the_whole_job_fails_the_samples_that_are_left(jobs, monkeypatch):
    segment = predict.segment_slides

    def fail_after_one(*args, **kwargs):
        yield next(segment(*args, **kwargs))
        raise ConfigError("a window does not fit")

    monkeypatch.setattr(predict, "segment_slides", fail_after_one)
    entries = jobs.run("predict")
    assert [entry.is_done for _, entry in sorted(entries.items())] == [True, False, False]
    assert entries["plate/c"].failure.message == "a window does not fit"


def test_a_full_disk_ends_the_job_and_what_is_done_is_kept(jobs, monkeypatch, capsys):
    segment = predict.segment_slides

    def fail_after_one(*args, **kwargs):
        yield next(segment(*args, **kwargs))
        raise StorageError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(predict, "segment_slides", fail_after_one)
        assert main(jobs.command("predict")) == 1
    assert "error: predict: no space left [StorageError]" in capsys.readouterr().err
    assert not ledger_path("predict", MODEL, BATCH).exists()
    before = jobs.path(paths.PREDICTION, "plate/a").stat().st_mtime_ns
    assert all(entry.is_done for entry in jobs.run("predict").values())
    assert jobs.path(paths.PREDICTION, "plate/a").stat().st_mtime_ns == before


def test_a_slide_of_another_pixel_size_than_the_training_has_a_warning(jobs):
    """What the sheet states counts."""
    card = card_path(NETWORK)
    write_json(card, read_json(card) | {"pixel_size_um": [0.5, 0.5]})
    jobs.put("plate/b", Path("plate/b.tif"), pixel_size_um=5.0)
    jobs.put("plate/c", Path("plate/c.tif"), pixel_size_um=0.5)
    found = {sample: entry.found["warnings"] for sample, entry in jobs.run("tile").items()}
    expected = "its pixels are 10 times as large as those of the training (5 and 0.5 \u00b5m)"
    assert found == {"plate/a": [], "plate/b": [expected], "plate/c": []}


@pytest.mark.parametrize(
    ("slide", "training", "warning"),
    [
        ((1.0, 0.5), (0.5, 0.5), "its pixels are 2 times as large as those of the training (1 and 0.5 µm)"),
        ((0.5, 0.1), (0.5, 0.5), "its pixels are 0.2 times as large as those of the training (0.1 and 0.5 µm)"),
        ((1.0, 0.5), (1.0, 0.5), None),
        ((1.0, 0.5), None, "its pixels are not square (1 x 0.5 µm); image.pixel_size_um makes them square"),
        ((0.25, 0.252), None, None),
        (None, (0.5, 0.5), None),
    ],
)
def test_both_sides_of_a_pixel_count(slide, training, warning):
    assert pixel_size_warning(slide, training) == ([warning] if warning else [])


def test_a_gpu_is_measured_if_the_job_is_long_with_the_windows_inside_of_the_largest_slide(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "remembered_batch_px", lambda *asked: asked[3:])
    network = network_with_batch_stats(width=2, depth=1, in_channels=3)
    grids = [Grid.plan((side, side), geometry=network.geometry, tile_px=512, mirror_px=0) for side in (512, 8192, 8192)]

    def batch_px(device, grids):
        targets = [SimpleNamespace(plan=SimpleNamespace(grid=grid)) for grid in grids]
        return predict._batch_px(tmp_path, network.to(device), CARD, "a", targets, 4000)

    largest = max(tile.read.shape for tile in grids[1].tiles())
    assert batch_px("cpu", grids * 2) is None
    assert batch_px("meta", grids * 2) == ((3, *largest), largest_window_px(CARD, 4000))
    assert batch_px("meta", grids) is None
    assert batch_px("meta", []) is None
