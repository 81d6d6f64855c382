"""One bad slide costs one slide: the others finish, and the report says what failed, why, and what to do.

The runs with bad slides have no more rights than the modes of the files give, as those of a user.
"""

import shlex
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from pipeline.base.files import read_json, sha256
from tests.support.networks import write_network
from tests.support.slide_files import WITHOUT_PRIVILEGES, header_of
from tests.support.workflow import Project

GOOD = ["alone", "plate/1", "plate/2"]
BAD = {
    "plate/bomb": ("tile", "bomb.tif: cannot be read: a strip or tile of 100000 x 100000 x 3 px decodes to 30000 MB"),
    "plate/empty": ("tile", "data/slides/plate/empty.tif: cannot be read: the file is empty (0 bytes)"),
    "plate/grey": ("tile", "grey.tif: no channel 1"),
    "plate/locked": ("drop", "locked.tif: cannot be read: permission denied"),
    "plate/misfit": ("evaluate", "labels of (5, 5) px (rows, columns) for an image of (70, 90) px"),
    "plate/nan": ("tile", "nan.tif: 1 pixels are NaN or infinite"),
    "plate/stack": ("tile", "stack.tif: 3 planes along axis Z; choose with image.z"),
    "text": ("tile", "data/slides/text.tif: cannot be read: no image: its first bytes are those of no known format"),
    "truncated": ("tile", "truncated.tif: cannot be read: the file is cut short"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("failures"), tuple(WITHOUT_PRIVILEGES))
    write_network(made.folder / "network", in_channels=2, width=2, depth=2)
    made.configure(image={"channels": [0, 1]})
    return made


@pytest.fixture(scope="module")
def with_rights(project, python):
    """The same project, for runs without bad slides."""
    return replace(project, prefix=(), python=python)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 255, (70, 90, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def failed(project, pixels):
    """The run with all slides, as it ended."""
    nan = pixels.astype(np.float32)
    nan[3, 4, 1] = np.nan
    slides = dict.fromkeys((*GOOD, "plate/misfit", "plate/locked", "truncated"), pixels)
    slides |= {"plate/bomb": header_of(100_000, 100_000, samples=3), "plate/empty": b"", "plate/grey": pixels[..., 0]}
    slides["text"] = b"Sign in to download <script>alert(1)</script>"
    for sample, content in slides.items():
        project.drop(f"slides/{sample}.tif", content)
    tifffile.imwrite(project.slide("plate/nan"), nan, photometric="rgb")
    tifffile.imwrite(project.slide("plate/stack"), np.stack([pixels] * 3), photometric="rgb", metadata=None)
    project.slide("truncated").write_bytes(project.slide("truncated").read_bytes()[:-100])
    project.slide("plate/locked").chmod(0)
    for sample, shape in (("alone", (70, 90)), ("plate/misfit", (5, 5))):
        project.drop(f"references/{sample}.tif", np.zeros(shape, np.uint8))
    return project.snakemake()


def test_the_run_fails_and_its_last_lines_say_what_and_what_to_do(failed):
    assert failed.returncode != 0
    end = failed.stderr[failed.stderr.index("3 done, 9 failed") :]
    for sample, (stage, reason) in BAD.items():
        assert f"failed: {sample} at {stage}: " in end
        assert reason in end
    assert "run the same command again" in end
    assert "Traceback" not in failed.stderr


@pytest.mark.usefixtures("failed")
def test_every_sample_has_a_row_with_its_reason(project):
    table = project.metrics()
    assert sorted(table.index) == sorted([*GOOD, *BAD])
    assert (table.loc[GOOD, "status"] == "done").all()
    for sample, (stage, reason) in BAD.items():
        row = table.loc[sample]
        assert (row["status"], row["stage"], row["error_class"]) == ("failed", stage, "SlideError")
        assert reason in row["error"]
        assert stage == "drop" or (project.folder / row["log"]).is_file()


@pytest.mark.usefixtures("failed")
def test_the_page_counts_the_failed_ones_and_escapes_their_errors(project):
    page = (project.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert f"{len(GOOD) + len(BAD)} results<" in page
    assert f" {len(BAD)} failed<" in page
    assert "<script>alert" not in page


@pytest.mark.usefixtures("failed")
def test_the_comparison_counts_the_failed_ones_and_scores_the_others(project):
    row = project.comparison().loc["net"]
    assert (row["samples"], row["failed"]) == (1, len(BAD))  # one of the good ones has a reference
    assert row["foreground_dice"] == project.metrics().loc["alone", "foreground_dice"]


@pytest.mark.usefixtures("failed")
def test_no_mask_of_a_slide_that_failed_is_left(project):
    assert {name.removesuffix(".ome.tiff") for name in project.masks()} == {*GOOD, "plate/misfit"}


@pytest.mark.usefixtures("failed")
def test_the_first_line_of_a_log_repeats_its_job(project):
    log = project.folder / "logs" / "tile" / "net" / "plate" / "0001.log"
    _, command = log.read_text().splitlines()[0].split(": ", 1)
    plan = project.folder / "results" / "plans" / "net" / "plate" / "1.json"
    before = plan.read_bytes()
    plan.unlink()
    subprocess.run(shlex.split(command), cwd=project.folder, check=True)
    assert plan.read_bytes() == before
    assert len(log.read_text().splitlines()) < 30


@pytest.mark.usefixtures("failed")
def test_a_fixed_file_is_redone_alone(project, pixels):
    before = project.masks()
    project.drop("slides/truncated.tif", pixels)
    assert project.snakemake().returncode != 0  # the others are still broken
    after = project.masks()
    assert after.pop("truncated.ome.tiff")
    assert after == before
    assert project.metrics()["status"].value_counts().to_dict() == {"done": 4, "failed": 8}


@pytest.mark.usefixtures("failed")
def test_without_the_bad_ones_the_run_succeeds_and_records_where_every_mask_comes_from(project):
    for sample in set(BAD) - {"truncated"}:
        project.slide(sample).unlink()
    assert "\n4 done\n" in project.run()
    assert project.planned() == {}
    origin = read_json(project.folder / "results" / "provenance.json")
    assert "snakemake" in origin["command"]
    assert origin["versions"].keys() >= {"python", "torch", "snakemake"}
    made = {one["sample"]: one for one in origin["samples"]}
    assert made.keys() == {*GOOD, "truncated"} == set(project.metrics().index)
    for one in made.values():
        assert one["slide_sha256"] == sha256(project.folder / one["slide"])
        assert one["weights_sha256"] == sha256(project.folder / "network" / "model.safetensors")
        assert origin["sha256"][one["mask"]] == sha256(project.folder / one["mask"])
        assert one["device"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tilling": {}}, "config/config.yaml: unknown key 'tilling' (value {}); known keys here: slides, references"),
        ({"tiling": {"tile_px": 3}}, "tiling.tile_px: Input should be greater than or equal to 16, got 3"),
        ({"models": {"net": {}}}, "no training images in data/training/images"),
        ({"classes": ["background", "nucleus"]}, ".checkpoint: its classes are ['background', 'object'], those of the"),
    ],
)
def test_a_wrong_configuration_stops_before_the_first_job_with_one_line(with_rights, settings, message):
    with_rights.configure(**settings)
    done = with_rights.snakemake()
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def late(with_rights, micrograph):
    """The project with one new slide in place of all others."""
    for path in (with_rights.folder / "data" / "slides").rglob("*.tif"):
        path.unlink()
    with_rights.drop("slides/late.tif", micrograph)
    return with_rights


def test_labels_of_another_shape_stop_the_training_and_every_sample_says_so(late, micrograph):
    for name in ("a", "b"):
        late.drop(f"training/images/{name}.tif", micrograph)
        late.drop(f"training/labels/{name}.tif", (micrograph > 99).astype(np.uint8)[:, :-1])
    late.configure(models={"trained": {"options": {"width": 2}, "max_steps": 1}})
    done = late.snakemake()
    reason = "data/training/labels/a.tif: labels of (70, 89) px (rows, columns) for an image of (70, 90) px"
    assert done.returncode != 0
    assert f"failed: trained at weigh: {reason}" in done.stderr
    assert "; no mask of late\n" in done.stderr
    (row,) = late.metrics().to_dict("records")
    assert row["stage"] == "weigh"
    assert row["error"].startswith(reason)
    assert late.comparison().loc["trained", ["rank", "foreground_dice", "train_minutes", "parameters"]].isna().all()
