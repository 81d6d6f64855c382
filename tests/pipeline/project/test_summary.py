"""A run ends with what became of the samples, and what to do; one reason is one line."""

import pandas as pd
import pytest

from pipeline.base.errors import Failure
from pipeline.base.files import write_json
from pipeline.project.jobs.ledger import Entry, network_ledger_path, write_ledger
from pipeline.project.summary import last_lines, print_verifications
from pipeline.settings.schema import Settings

pytestmark = pytest.mark.usefixtures("in_folder")


def lines_of(tmp_path, *rows):
    names = ("sample", "status", "stage", "error", "log")
    pd.DataFrame([dict(zip(names, row, strict=True)) for row in rows]).to_csv(tmp_path / "metrics-all.csv", index=False)
    text, failed = last_lines(tmp_path, Settings())
    assert failed == sum(row[1] == "failed" for row in rows)
    return text.splitlines()


def test_a_good_run_says_how_many_are_done_and_where_to_look(tmp_path):
    count, where = lines_of(tmp_path, ("a", "done", "", "", ""), ("b", "done", "", "", ""))
    assert count == "2 done"
    assert "report.html" in where
    assert "metrics.csv" in where


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


def test_what_failed_for_all_is_one_line(tmp_path):
    rows = [(f"{number}", "failed", "tile", "no space left", "logs/tile/unet/0001.log") for number in range(500)]
    assert lines_of(tmp_path, *rows)[1] == "  failed: 0 and 499 more at tile: no space left (logs/tile/unet/0001.log)"


def test_many_reasons_do_not_fill_the_screen(tmp_path):
    lines = lines_of(tmp_path, *((f"{number}", "failed", "tile", f"{number}", "") for number in range(500)))
    assert len(lines) == 13
    assert lines[-2] == "  ... and 490 more reasons"


def test_a_network_that_failed_fails_a_run_without_samples_and_is_told_once_with_them(tmp_path):
    failure = Failure("train", "SlidemillError", "the loss is nan", "logs/train/unet.log")
    with write_ledger(network_ledger_path("train", "unet"), stage="train", model="unet") as writer:
        writer.record("unet", Entry(fingerprint="", failure=failure))
    (tmp_path / "metrics-all.csv").write_text("sample,status,stage,error,log\n")
    text, failed = last_lines(tmp_path, Settings())
    assert failed == 1
    assert text.splitlines()[:2] == [
        "1 failed",
        "  failed: unet at train: the loss is nan (logs/train/unet.log)",
    ]
    rows = [(name, "failed", "train", "the loss is nan", "logs/train/unet.log") for name in "abc"]
    assert lines_of(tmp_path, *rows)[:2] == [
        "3 failed",
        "  failed: unet at train: the loss is nan (logs/train/unet.log); no mask of a and 2 more",
    ]


def test_a_run_without_samples_says_which_networks_there_are(tmp_path):
    (tmp_path / "metrics-all.csv").write_text("sample,status,stage,error,log\n")
    network = tmp_path / "results/models/unet/model.safetensors"
    network.parent.mkdir(parents=True)
    network.touch()
    text, failed = last_lines(tmp_path, Settings())
    assert failed == 0
    assert text.startswith("no slides; trained: unet\nlook at ")


def test_the_mean_dice_of_each_class_is_over_the_samples_that_have_one(tmp_path):
    """By hand; a training image does not count, nor a class that is in no reference."""
    (tmp_path / "metrics-all.csv").write_text(
        "sample,model,status,stage,error,log,learned,dice_background,dice_object\n"
        "a,unet,done,,,,,0.9,0.5\n"
        "b,unet,done,,,,,0.8,\n"
        "c,unet,done,,,,yes,0.1,0.1\n"
        "d,unet,done,,,,,,\n"
    )
    text, _ = last_lines(tmp_path, Settings(classes=["background", "object"]))
    assert text.splitlines()[1] == "  mean Dice with unet: background 0.850, object 0.500 (2 with a reference)"


def test_a_verification_says_how_often_it_holds(in_folder, capsys):
    for name, law in (("a", "holds"), ("b", "holds"), ("c", "broken")):
        write_json(in_folder / f"{name}.json", {"law": law})
    print_verifications(["a.json", "b.json", "c.json", "none.json"])
    assert (
        capsys.readouterr().err
        == "verification (tiles equal one pass over the whole): broken on 1 of 3, holds on 2 of 3\n"
    )


def test_training_images_among_the_slides_are_counted(tmp_path):
    (tmp_path / "metrics-all.csv").write_text("sample,status,stage,error,log,learned\na,done,,,,yes\nb,done,,,,\n")
    text, _ = last_lines(tmp_path, Settings())
    assert "\n  1 of them are training images: left out of means, ranking and tests\n" in text
