"""One bad slide costs one slide: every other sample finishes, and the report says what failed and why."""

import numpy as np
import pytest
import tifffile

GOOD = ["good", "plate/good"]
BAD = {
    "empty": ("tile", "data/slides/empty.tif: cannot be read: the file is empty (0 bytes)"),
    "text": ("tile", "data/slides/text.tif: cannot be read: no image: it begins with"),
    "plate/short": ("tile", "data/slides/plate/short.tif: cannot be read: the file is cut short"),
    "plate/nan": ("tile", "data/slides/plate/nan.tif: 1 pixels are NaN or infinite"),
    "plate/stack": ("tile", "data/slides/plate/stack.tif: 3 planes along axis Z; choose with image.z"),
    "misfit": ("evaluate", "labels of (5, 5) px (rows, columns) for an image of (70, 90) px"),
}


@pytest.fixture(scope="module")
def failed_run(project, micrograph):
    for sample in (*GOOD, "misfit"):
        project.drop(f"slides/{sample}.tif", micrograph)
    project.drop("references/good.tif", (micrograph > 99).astype(np.uint8))
    project.drop("references/misfit.tif", np.zeros((5, 5), np.uint8))
    project.drop("slides/empty.tif", b"")
    project.drop("slides/text.tif", b"Sign in to download <script>alert(1)</script>")
    whole = project.drop("slides/plate/short.tif", micrograph).read_bytes()
    project.drop("slides/plate/short.tif", whole[:-100])
    nan = micrograph.astype(np.float32)
    nan[3, 4] = np.nan
    project.drop("slides/plate/nan.tif", nan)
    tifffile.imwrite(
        project.folder / "data/slides/plate/stack.tif",
        np.zeros((3, 70, 90), np.uint8),
        photometric="minisblack",
        metadata=None,
    )
    return project.snakemake()


def test_the_run_fails_and_says_which(failed_run):
    assert failed_run.returncode != 0
    assert "error: tile: data/slides/empty.tif: cannot be read: the file is empty" in failed_run.stderr
    assert "Traceback" not in failed_run.stderr


@pytest.mark.usefixtures("failed_run")
def test_every_sample_has_a_row_with_its_reason(project):
    table = project.metrics()
    assert sorted(table.index) == sorted([*GOOD, *BAD])
    for sample in GOOD:
        assert table.loc[sample, "status"] == "done"
    for sample, (stage, message) in BAD.items():
        assert table.loc[sample, "status"] == "failed"
        assert table.loc[sample, "stage"] == stage
        assert message in table.loc[sample, "error"]
        assert (project.folder / table.loc[sample, "log"]).is_file()


@pytest.mark.usefixtures("failed_run")
def test_the_page_names_the_failed_ones_and_escapes_what_they_say(project):
    page = (project.folder / "results" / "report.html").read_text(encoding="utf-8")
    assert f"{len(GOOD) + len(BAD)} results<" in page
    assert f" {len(BAD)} failed<" in page
    assert "<script>alert" not in page


@pytest.mark.usefixtures("failed_run")
def test_the_comparison_counts_the_failed_ones_and_scores_the_others(project):
    row = project.comparison().loc["net"]
    assert (row["samples"], row["failed"]) == (1, len(BAD))  # one of the good ones has a reference
    assert row["dice_mean"] == project.metrics().loc["good", "dice_mean"]


@pytest.mark.usefixtures("failed_run")
def test_no_result_of_a_failed_sample_is_left(project):
    assert {name.removesuffix(".ome.tiff") for name in project.masks()} == {*GOOD, "misfit"}


@pytest.mark.usefixtures("failed_run")
def test_without_the_bad_ones_the_report_is_written_anew_and_the_run_succeeds(project):
    for sample in BAD:
        (project.folder / "data" / "slides" / f"{sample}.tif").unlink()
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    assert sorted(project.metrics().index) == GOOD
    assert project.planned() == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tilling": {}}, "config/config.yaml: unknown key 'tilling' (value {}); known keys here: slides, references"),
        ({"tiling": {"tile_px": 3}}, "tiling.tile_px: Input should be greater than or equal to 16, got 3"),
        ({"models": {"net": {}}}, "no training images in data/training/images"),
    ],
)
def test_a_wrong_configuration_stops_before_the_first_job_with_one_line(project, settings, message):
    project.configure(**settings)
    done = project.snakemake()
    project.configure()
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_network_of_other_classes_is_refused(project, micrograph):
    project.drop("slides/late.tif", micrograph)
    project.configure(classes=["background", "nucleus"])
    done = project.snakemake()
    project.configure()
    assert done.returncode != 0
    assert "error: predict: network/model.safetensors: its classes are ['background', 'object']" in done.stderr
    assert project.metrics().loc["late", "stage"] == "predict"


def test_labels_of_another_shape_stop_the_training_and_every_sample_says_so(project, micrograph):
    for name in ("a", "b"):
        project.drop(f"training/images/{name}.tif", micrograph)
        project.drop(f"training/labels/{name}.tif", (micrograph > 99).astype(np.uint8)[:, :-1])
    project.configure(models={"trained": {"options": {"width": 2}, "max_steps": 1}})
    done = project.snakemake()
    project.configure()
    reason = "data/training/labels/a.tif: labels of (70, 89) px (rows, columns) for an image of (70, 90) px"
    assert done.returncode != 0
    assert f"error: weigh: {reason}" in done.stderr
    table = project.metrics()
    assert len(table) > 0
    assert (table["stage"] == "weigh").all()
    assert table["error"].str.startswith(reason).all()
    assert project.comparison().loc["trained", ["rank", "dice_mean", "train_minutes", "parameters"]].isna().all()
