"""In every stage, a sample that fails or crashes its process costs itself; the others are made as if alone."""

import os
import signal
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.base.files import sha256
from pipeline.project.jobs.ledger import ledger_path
from tests.support.jobs import BATCH, MODEL, Jobs
from tests.support.networks import write_network

STAGES = ("tile", "predict", "stitch", "objects", "evaluate")
LOOK = {"intensity", "contrast", "skewness", "focus", "saturated", "tissue"}
KEYS = {
    "tile": {"pixels", "slide_sha256", "appearance", "warnings"},
    "predict": {
        *("pixels", "wall_s", "network_s", "reading_s", "writing_s", "uncertain", "tile_mismatch"),
        *(
            "differing_px",
            "compared_px",
            "probabilities",
            "heads",
            "objects",
            "weights_sha256",
            "device",
            "devices",
            "precision",
            "threads",
            "small_area_px",
        ),
    },
    "stitch": {"mask_sha256"},
    "objects": {
        *("objects", "median_area_px", "area_spread", "class_objects", "class_pixels", "class_median_area_px"),
        *("pixel_size_um", "picture_px", "regions", "warnings", "histograms", "marked"),
    },
    "evaluate": {"metrics", "warnings"},
}
MEASURED = {"wall_s", "network_s", "reading_s", "writing_s", "threads"}  # differ from job to job
# What each stage opens, by which a test makes one sample crash
OPENED = {"tile": "open_slide", "stitch": "open_prediction", "objects": "open_slide", "evaluate": "open_reference"}

CRASHING_PREDICT = """
import os, signal, sys
from pipeline.__main__ import main
from pipeline.prediction import windows

decode = windows.open_slide

def crash(path, *rest, **options):
    if path.name.startswith("bad"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return decode(path, *rest, **options)

windows.open_slide = crash
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_network(tmp_path_factory.mktemp("network"), width=2, depth=2)


def batch(weights, *samples):
    """A batch in the current folder; the pixels of each sample follow from its name."""
    jobs = Jobs(weights, memory_mb=1000)
    for sample in samples:
        generator = np.random.default_rng(list(sample.encode()))
        slide, reference = Path(f"{sample}.tif"), Path(f"{sample} labels.tif")
        pixels = generator.integers(0, 255, (90, 120)).astype(np.uint8)
        if not slide.exists():
            tifffile.imwrite(slide, pixels)
            tifffile.imwrite(reference, (pixels > 200).astype(np.uint8))
            for path in (slide, reference):
                os.utime(path, (1, 1))  # fingerprints have the time of files
        jobs.put(sample, slide, reference)
    return jobs


def content(path):
    """Return what is in a file, without the times of the parts of a zip."""
    if path.suffix != ".zip":
        return sha256(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def made(jobs, stage, *samples):
    """Return what a stage recorded and made of samples: entries without times, and the content of files."""
    entries = jobs.entries(stage)
    return {
        sample: [
            entries[sample].fingerprint,
            {name: value for name, value in entries[sample].found.items() if name not in MEASURED},
            {path: content(Path(path)) for path in entries[sample].files},
        ]
        for sample in samples
    }


def assert_made_as_alone(jobs, weights, tmp_path, monkeypatch, *samples, stages=STAGES):
    """Compare with a project that has these samples only."""
    found = {stage: made(jobs, stage, *samples) for stage in stages}
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    alone = batch(weights, *samples)
    alone.run(*stages)
    assert found == {stage: made(alone, stage, *samples) for stage in stages}


def test_entries_have_the_keys_that_the_documentation_describes(in_folder, weights):
    jobs = batch(weights, "a")
    jobs.run(*STAGES)
    found = {stage: jobs.entries(stage)["a"].found for stage in STAGES}
    assert {stage: set(keys) for stage, keys in found.items()} == KEYS
    assert set(found["tile"]["appearance"]) == LOOK
    assert found["tile"]["slide_sha256"] == sha256(in_folder / "a.tif")
    assert found["predict"]["weights_sha256"] == sha256(weights)
    assert found["stitch"]["mask_sha256"] == sha256(jobs.mask("a"))
    assert found["evaluate"]["metrics"]["mask_sha256"] == found["stitch"]["mask_sha256"]
    assert not {"sample", "model"} & set(found["evaluate"]["metrics"])


def test_a_file_that_cannot_be_read_fails_in_tile_and_the_others_are_made_as_alone(in_folder, weights, monkeypatch):
    jobs = batch(weights, "a", "b", "c")
    Path("b.tif").write_bytes(b"no image")
    failure = jobs.run("tile")["b"].failure
    assert (failure.stage, failure.error_class) == ("tile", "SlideError")
    assert failure.message.startswith("b.tif: ")
    assert failure.log == f"logs/tile/{MODEL}/{BATCH}.log"
    jobs.run(*STAGES[1:])
    assert all(list(jobs.entries(stage)) == ["a", "c"] for stage in STAGES[1:])
    assert_made_as_alone(jobs, weights, in_folder, monkeypatch, "a", "c")


@pytest.mark.parametrize("stage", OPENED)
def test_a_sample_that_crashes_its_process_fails_and_others_are_made_as_alone(in_folder, weights, monkeypatch, stage):
    jobs = batch(weights, "a", "bad", "c")
    before = STAGES[: STAGES.index(stage)]
    jobs.run(*before, stage)
    ledger_path(stage, MODEL, BATCH).unlink()
    module = import_module(f"pipeline.stages.{stage}")
    decode = getattr(module, OPENED[stage])

    def crash(path, *rest, **options):
        if path.name.startswith("bad"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return decode(path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, OPENED[stage], crash)
        failure = jobs.run(stage)["bad"].failure
    assert (failure.stage, failure.error_class) == (stage, "ProcessLostError")
    assert "its process ended by SIGSEGV" in failure.message
    assert_made_as_alone(jobs, weights, in_folder, monkeypatch, "a", "c", stages=[*before, stage])


def test_slides_that_crash_predict_end_its_job_once_and_are_found_by_the_next_attempt(in_folder, weights, monkeypatch):
    jobs = batch(weights, "a", "bad 1", "bad 2", "c")
    jobs.run("tile")
    first, second = (
        subprocess.run([sys.executable, "-c", CRASHING_PREDICT, *jobs.command("predict")], check=False)
        for _ in range(2)
    )
    assert (first.returncode, second.returncode) == (-signal.SIGSEGV, 0)
    for sample in ("bad 1", "bad 2"):
        failure = jobs.entries("predict")[sample].failure
        assert (failure.stage, failure.error_class) == ("predict", "ProcessLostError")
        assert "its process ended by SIGSEGV" in failure.message
    assert_made_as_alone(jobs, weights, in_folder, monkeypatch, "a", "c", stages=["tile", "predict"])


def test_an_error_that_nobody_foresaw_is_of_one_slide(in_folder, weights, monkeypatch):
    jobs = batch(weights, "a", "bad", "c")
    jobs.run("tile")
    windows = import_module("pipeline.prediction.windows")
    read = windows.read_mirrored

    def fail(read_region, shape, region):
        if read_region.__self__.path.name.startswith("bad"):
            raise ValueError("no byte order")
        return read(read_region, shape, region)

    with monkeypatch.context() as patch:
        patch.setattr(windows, "read_mirrored", fail)
        failure = jobs.run("predict")["bad"].failure
    assert failure.message == "a bug in Slidemill: ValueError('no byte order'); see the log"
    assert_made_as_alone(jobs, weights, in_folder, monkeypatch, "a", "c", stages=["tile", "predict"])


def test_pixels_that_are_no_numbers_are_the_failure_of_their_sample(in_folder, weights):
    jobs = batch(weights, "a", "b")
    pixels = np.zeros((90, 120), np.float32)
    pixels[3, 4] = np.nan
    tifffile.imwrite(in_folder / "b.tif", pixels)
    entries = jobs.run("tile")
    assert entries["a"].is_done
    assert entries["b"].failure.error_class == "SlideError"
    assert entries["b"].failure.message == "b.tif: 1 pixels are NaN or infinite and cannot be normalized; replace them"


@pytest.mark.parametrize(("shape", "count"), [((300, 513), 2), ((1000, 600), 4), ((9000, 5000), 16)])
def test_the_appearance_is_that_of_few_windows(in_folder, weights, monkeypatch, shape, count):
    """Of at most 512 px, however large the slide is, spread from corner to corner."""
    tifffile.imwrite("a.tif", np.zeros(shape, np.uint8), compression="zlib", tile=(512, 512))
    jobs = Jobs(weights)
    jobs.put("a", Path("a.tif"))
    written = in_folder / "windows.txt"  # from the process of the sample
    tile = import_module("pipeline.stages.tile")
    measure = tile.appearance

    def count_windows(pieces):
        written.write_text(" ".join(str(piece.shape) for piece in pieces))
        return measure(pieces)

    monkeypatch.setattr(tile, "appearance", count_windows)
    assert jobs.run("tile")["a"].is_done
    sides = "(1, " + ", ".join(str(min(length, 512)) for length in shape) + ")"
    assert written.read_text() == " ".join([sides] * count)
