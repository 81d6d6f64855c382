"""A run ends with what became of the samples, and what to do; one reason is one line."""

from pathlib import Path

import pandas as pd

from pipeline.project.summary import last_lines


def lines_of(tmp_path, *rows):
    names = ("sample", "status", "stage", "error", "log")
    pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows]).to_csv(tmp_path / "m.csv", index=False)
    return last_lines(tmp_path / "m.csv", Path("report.html")).splitlines()


def test_a_good_run_is_one_line(tmp_path):
    assert lines_of(tmp_path, ("a", "done", "", "", ""), ("b", "done", "", "", "")) == ["2 done"]


def test_failed_and_waiting_ones_say_why_and_where(tmp_path):
    lines = lines_of(
        tmp_path,
        ("a", "done", "", "", ""),
        ("b", "failed", "tile", "b.tif: empty", "logs/tile/b.log"),
        ("c", "waiting", "", "c.tif: being copied", ""),
        ("d", "failed", "drop", "rename it", ""),
    )
    assert lines[:4] == [
        "1 done, 2 failed, 1 waiting",
        "  failed: d at drop: rename it",
        "  failed: b at tile: b.tif: empty (logs/tile/b.log)",
        "  waiting: c: c.tif: being copied",
    ]
    assert "run the same command again" in lines[4]
    assert "report.html" in lines[4]


def test_a_training_that_failed_for_all_is_one_line(tmp_path):
    rows = [(f"{number}", "failed", "train", "the loss is nan", "logs/train/unet.log") for number in range(500)]
    assert lines_of(tmp_path, *rows)[1] == "  failed: 0 and 499 more at train: the loss is nan (logs/train/unet.log)"


def test_many_reasons_do_not_fill_the_screen(tmp_path):
    lines = lines_of(tmp_path, *((f"{number}", "failed", "tile", f"{number}", "") for number in range(500)))
    assert len(lines) == 13
    assert lines[-2] == "  ... and 490 more reasons"
