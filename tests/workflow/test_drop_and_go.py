"""Only what changed is redone. One project through the days of its life, each test a day after the one before."""

import html
import os

import numpy as np
import tifffile

REPORT = {"report": 1, "all": 1}
MASKS = {count: {"stitch": count, "objects": count} for count in (1, 3, 5)}
ODD = '-it\'s; "ünïcode" $(x) µm'


def test_a_first_run_segments_all_slides(project, micrograph):
    project.drop("slides/alone.tif", micrograph)
    project.drop("slides/plate 1/a.tif", micrograph[:40, :50])
    project.drop(f"slides/plate 1/{ODD}.tif", micrograph)
    project.drop("references/alone.tif", (micrograph > 99).astype(np.uint8))
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    table = project.metrics()
    assert list(table.index) == ["alone", f"plate 1/{ODD}", "plate 1/a"]
    assert (table["status"] == "done").all()
    assert table["dice_mean"].notna().tolist() == [True, False, False]
    assert html.escape(ODD, quote=True).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in (
        project.folder / "results" / "report.html"
    ).read_text(encoding="utf-8")
    with tifffile.TiffFile(project.folder / "results" / "masks" / "net" / "alone.ome.tiff") as mask:
        assert mask.series[0].shape == micrograph.shape


def test_slides_of_a_folder_share_one_job(project):
    logs = project.folder / "logs" / "predict" / "net"
    assert sorted(path.stem for path in logs.iterdir()) == ["alone", "plate 1"]


def test_nothing_changed_means_nothing_to_do(project):
    assert project.planned() == {}


def test_a_comment_in_the_configuration_is_nothing(project):
    config = project.folder / "config" / "config.yaml"
    config.write_text("# a comment\n" + config.read_text())
    assert project.planned() == {}


def test_a_new_slide_is_its_own_jobs_and_the_report(project, micrograph):
    project.drop("slides/new.tif", micrograph.T.copy())
    assert project.planned() == {"tile": 1, "predict": 1, **MASKS[1], "inspect": 1, **REPORT}
    before = project.masks()
    assert project.snakemake().returncode == 0
    after = project.masks()
    assert after.pop("new.ome.tiff")
    assert after == before
    assert project.planned() == {}


def test_a_slide_added_to_a_folder_is_predicted_with_its_folder(project, micrograph):
    project.drop("slides/plate 1/b.tif", micrograph[::-1].copy())
    assert project.planned() == {"tile": 1, "predict": 1, **MASKS[3], "inspect": 1, **REPORT}
    before = project.masks()
    assert project.snakemake().returncode == 0
    after = project.masks()
    assert {name for name in after if after[name] != before.get(name)} == {
        f"plate 1/{sample}.ome.tiff" for sample in ("a", "b", ODD)
    }


def test_a_replaced_slide_leaves_those_of_other_batches(project, micrograph):
    """Also where the file that takes its place is older than its results, which no comparison of times shows."""
    os.utime(project.drop("slides/new.tif", micrograph[:30, :30]), (10**9, 10**9))
    assert project.planned() == {"tile": 1, "predict": 1, **MASKS[1], "inspect": 1, **REPORT}
    before = project.masks()
    assert project.snakemake().returncode == 0
    after = project.masks()
    assert after.pop("new.ome.tiff") != before.pop("new.ome.tiff")
    assert after == before


def test_a_new_reference_is_evaluated_without_the_network(project, micrograph):
    project.drop("references/new.tif", (micrograph[:30, :30] > 99).astype(np.uint8))
    assert project.planned() == {"evaluate": 1, **REPORT}
    assert project.snakemake().returncode == 0
    assert project.metrics().loc["new", "pixels"] == 900


def test_a_setting_of_metrics_needs_no_network(project):
    project.configure(metrics={"tolerance_px": 3.0})
    assert project.planned() == {"evaluate": 2, **REPORT}
    project.configure()


def test_a_mask_setting_neither_trains_nor_plans(project):
    project.configure(masks={"instances": "none"})
    assert project.planned() == {"predict": 3, **MASKS[5], "evaluate": 2, **REPORT}
    project.configure()
    assert project.planned() == {}


def test_a_slide_that_is_still_copied_waits_and_the_others_do_not(project, micrograph):
    copied = project.drop("slides/copied.tif", micrograph)
    (project.folder / "config" / "samples.csv").write_text("sample,group\ncopied,1\ndeleted long ago,2\n")
    project.configure(settle_s=3600)
    assert project.planned() == REPORT
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    assert "config/samples.csv: no slide 'deleted long ago': deleted, or misspelt" in done.stderr
    assert "5 done, 1 waiting\n  waiting: copied: data/slides/copied.tif: changed less than settle_s" in done.stderr
    assert project.metrics().loc["copied", "status"] == "waiting"
    assert project.planned() == {}
    copied.unlink()
    (project.folder / "config" / "samples.csv").unlink()
    project.configure()


def test_deleted_slides_leave_the_report_and_nothing_else_runs(project):
    (project.folder / "data" / "slides" / "new.tif").unlink()
    (project.folder / "data" / "slides" / "plate 1" / "b.tif").unlink()
    assert project.planned() == REPORT
    assert project.snakemake().returncode == 0
    assert sorted(project.metrics().index) == sorted(["alone", "plate 1/a", f"plate 1/{ODD}"])


def test_the_report_of_snakemake_is_made_offline(project):
    done = project.snakemake("--report", str(project.folder / "report.zip"))
    assert done.returncode == 0, done.stderr
    assert (project.folder / "report.zip").stat().st_size > 10_000
