"""Twelve slides, seven of them broken in seven ways: five are done, seven are rows with the right reason.

The run is one that a user makes, by a process that has no more rights than the modes of the files give.
"""

import shlex
import subprocess
from collections import Counter

import numpy as np
import pytest
import tifffile

from pipeline.base.files import read_json, sha256
from tests.support.networks import write_network
from tests.support.slide_files import WITHOUT_PRIVILEGES, header_of
from tests.support.workflow import Project

GOOD = ["alone", "plate/1", "plate/2", "plate/3", "plate/4"]
BAD = {
    "truncated": ("tile", "truncated.tif: cannot be read: the file is cut short"),
    "plate/empty": ("tile", "empty.tif: cannot be read: the file is empty (0 bytes)"),
    "plate/grey": ("tile", "grey.tif: channel 1 asked for"),
    "plate/bomb": ("tile", "bomb.tif: cannot be read: a strip or tile of 100000 x 100000 x 3 px decodes to 30000 MB"),
    "plate/locked": ("drop", "locked.tif: cannot be read: permission denied"),
    "plate/misfit": ("evaluate", "labels of (5, 5) px (rows, columns) for an image of (70, 90) px"),
    "plate/nan": ("tile", "nan.tif: 1 pixels are NaN or infinite"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("matrix"), tuple(WITHOUT_PRIVILEGES))
    write_network(made.folder / "network", in_channels=2, width=2, depth=2)
    made.configure(image={"channels": [0, 1]})
    return made


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 255, (70, 90, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def run(project, pixels):
    for sample in (*GOOD, "plate/misfit", "plate/locked"):
        project.drop(f"slides/{sample}.tif", pixels)
    for sample, shape in (("alone", (70, 90)), ("plate/misfit", (5, 5))):
        project.drop(f"references/{sample}.tif", np.zeros(shape, np.uint8))
    whole = project.drop("slides/truncated.tif", pixels).read_bytes()
    project.drop("slides/truncated.tif", whole[:-100])
    project.drop("slides/plate/empty.tif", b"")
    project.drop("slides/plate/grey.tif", pixels[..., 0])
    project.drop("slides/plate/bomb.tif", header_of(100_000, 100_000, samples=3))
    (project.folder / "data/slides/plate/locked.tif").chmod(0)
    nan = pixels.astype(np.float32)
    nan[3, 4, 1] = np.nan
    tifffile.imwrite(project.folder / "data/slides/plate/nan.tif", nan, photometric="rgb")
    return project.snakemake()


def test_the_run_fails_and_its_last_lines_say_what_and_what_to_do(run):
    assert run.returncode != 0
    end = run.stderr[run.stderr.index("5 done, 7 failed") :]
    for sample, (stage, reason) in BAD.items():
        assert f"failed: {sample} at {stage}: " in end
        assert reason in end
    assert "mend what failed and run the same command again" in end
    assert "Traceback" not in run.stderr


@pytest.mark.usefixtures("run")
def test_five_are_done_and_seven_are_rows_with_their_reason(project):
    table = project.metrics()
    assert sorted(table.index) == sorted([*GOOD, *BAD])
    assert (table.loc[GOOD, "status"] == "done").all()
    for sample, (stage, reason) in BAD.items():
        row = table.loc[sample]
        assert (row["status"], row["stage"], row["error_class"]) == ("failed", stage, "SlideError")
        assert reason in row["error"]
        assert stage == "drop" or (project.folder / row["log"]).is_file()


@pytest.mark.usefixtures("run")
def test_the_first_line_of_a_log_repeats_its_job(project):
    log = project.folder / "logs" / "tile" / "net" / "plate" / "nan.log"
    _, command = log.read_text().splitlines()[0].split(": ", 1)
    plan = project.folder / "results" / "plans" / "net" / "plate" / "nan.json"
    before = plan.read_bytes()
    plan.unlink()
    subprocess.run(shlex.split(command), cwd=project.folder, check=True)
    assert plan.read_bytes() == before
    assert len(log.read_text().splitlines()) < 10


@pytest.mark.usefixtures("run")
def test_mending_one_file_redoes_only_it(project, pixels):
    before, planned = project.masks(), Counter(project.planned())
    project.drop("slides/truncated.tif", pixels)
    more = Counter(project.planned()) - planned
    assert more == {"tile": 1, "inspect": 1, "predict": 1}  # its stitch, objects and the report were due anyhow
    assert project.snakemake().returncode != 0  # the others are still broken
    after = project.masks()
    assert after.pop("truncated.ome.tiff")
    assert after == before
    assert project.metrics()["status"].value_counts().to_dict() == {"done": 6, "failed": 6}


@pytest.mark.usefixtures("run")
def test_without_the_bad_ones_the_origin_of_every_mask_is_collected(project):
    for sample in set(BAD) - {"truncated"}:
        (project.folder / "data" / "slides" / f"{sample}.tif").unlink()
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    assert "\n6 done\n" in done.stderr
    assert project.planned() == {}
    origin = read_json(project.folder / "results" / "provenance.json")
    assert "snakemake" in origin["command"]
    assert origin["versions"].keys() >= {"python", "torch", "snakemake"}
    made = {one["sample"]: one for one in origin["samples"]}
    assert made.keys() == {*GOOD, "truncated"}
    for one in made.values():
        assert one["slide_sha256"] == sha256(project.folder / one["slide"])
        assert one["weights_sha256"] == sha256(project.folder / "network" / "model.safetensors")
        assert origin["sha256"][one["mask"]] == sha256(project.folder / one["mask"])
        assert one["device"]
