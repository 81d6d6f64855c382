"""Slides in the drop folder are segmented, wait, or are refused; replaced ones are noticed."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.project.drop_folder import (
    Sample,
    command_of_run,
    find_samples,
    has_changes,
    known_samples,
    refuse_for_cluster,
    samples_of_run,
    write_samples,
)
from pipeline.settings.schema import Settings
from tests.support.slide_files import touch

SETTINGS = Settings()


@pytest.fixture
def folder(in_folder):
    """The drop folder of a project, with one slide."""
    slides = in_folder / "data" / "slides"
    slides.mkdir(parents=True)
    tifffile.imwrite(slides / "a.tif", np.ones((50, 60), np.uint8))
    return slides


def samples_after(seconds):
    return find_samples(SETTINGS, now_s=time.time() + seconds)


def ready(samples):
    return [name for name, sample in samples.items() if sample.is_ready]


@pytest.mark.usefixtures("folder")
def test_a_slide_waits_until_it_no_longer_changes():
    assert "changed less than settle_s (10 s) ago" in samples_after(5)["a"].waits
    assert ready(samples_after(11)) == ["a"]
    assert ready(samples_after(-1000)) == ["a"]  # with a wrong clock nothing waits
    assert ready(find_samples(Settings(settle_s=0))) == ["a"]


def test_a_copy_that_keeps_the_time_of_the_original_waits_too(folder):
    os.utime(folder / "a.tif", (1, 1))
    assert samples_after(5)["a"].waits


def test_a_slide_that_is_shorter_than_its_header_waits_for_an_hour_and_is_then_left_to_fail(folder):
    (folder / "a.tif").write_bytes((folder / "a.tif").read_bytes()[:-100])
    assert "shorter than its header says" in samples_after(60)["a"].waits
    assert ready(samples_after(3700)) == ["a"]


def test_a_set_waits_for_its_files(folder):
    (folder / "set.companion.ome").write_text('<UUID FileName="z1.ome.tif"/>')
    assert "its file z1.ome.tif is missing" in samples_after(60)["set"].waits
    shutil.copy(folder / "a.tif", folder / "z1.ome.tif")
    assert ready(samples_after(60)) == ["a", "set"]


def test_a_segmented_slide_does_not_wait_after_its_permissions_change(folder):
    write_samples(samples_after(60), "snakemake")
    (folder / "a.tif").chmod(0o600)
    assert ready(samples_after(1)) == ["a"]


def test_a_replaced_slide_has_another_version_also_where_it_is_older(folder):
    before = samples_after(60)
    (folder / "other.tif").write_bytes((folder / "a.tif").read_bytes())
    os.utime(folder / "other.tif", (10**9, 10**9))
    (folder / "other.tif").replace(folder / "a.tif")
    after = samples_after(60)
    assert before["a"].version != after["a"].version
    assert has_changes(after, before)


def test_slides_of_one_name_in_different_folders_are_two(folder):
    touch(folder, "plate 1/a.tif", "plate 2/a.tif")
    assert ready(samples_after(60)) == ["a", "plate 1/a", "plate 2/a"]


def test_a_bad_name_costs_one_sample(folder):
    touch(folder, "a.png", "b.tif", "c{}.tif")
    found = samples_after(60)
    assert ready(found) == ["b"]
    assert "would be the same sample 'a'" in found["a"].refused
    assert "rename it" in found["c{}"].refused


ODD_NAMES = ["plain", "it's", '-a; "ünïcode" $(x) µm', "a=b", "plate 1/A01"]
ODD_NAMES += ["`x`", "it's $x", "it's `x`", "it's \"", "a\xa0b"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_a_shell_would_change_is_refused_on_a_cluster(name):
    """Snakemake writes what it asks of a job into a script, quoted as Python does."""
    sample = Sample(slide=f"data/slides/{name}.tif", version="1 bytes, 2 ns")
    script = f"printf %s {f'tile:model=net,sample={name}'!r}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    result = refuse_for_cluster({name: sample})[name]
    assert result.is_ready == (done.stdout == f"tile:model=net,sample={name}")
    assert result.is_ready or "rename it" in result.refused


def test_a_comma_is_refused_on_a_cluster_and_a_slide_refused_there_is_no_change():
    found = {"a, b": Sample(slide="data/slides/a, b.tif", version="1 bytes, 2 ns"), "c": Sample(slide="c.tif")}
    refused = refuse_for_cluster(found)
    assert ready(refused) == ["c"]
    assert not has_changes(found, refused)
    assert has_changes(found, refused | {"a, b": Sample(slide="data/slides/a, b.tif", refused="another reason")})


def test_two_references_of_one_slide_cost_that_slide(folder):
    touch(folder.parent / "references", "a.tif", "a.png", "b.tif")
    touch(folder, "b.tif")
    found = samples_after(60)
    assert "its reference" in found["a"].refused
    assert found["b"].reference == "data/references/b.tif"
    assert ready(found) == ["b"]


def test_jobs_and_report_use_what_the_run_found(folder):
    found = samples_after(60)
    write_samples(found, "snakemake --cores 2")
    touch(folder, "late.tif")
    assert samples_of_run(SETTINGS) == known_samples() == found
    assert command_of_run() == "snakemake --cores 2"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"samples": {"a": {"unknown": 1}}}', '{"samples": []}'])
def test_without_a_list_that_can_be_read_the_folder_is_looked_at(folder, content):
    (folder.parents[1] / "results").mkdir()
    (folder.parents[1] / "results" / "slides.json").write_text(content)
    assert known_samples() == {}
    assert list(samples_of_run(SETTINGS)) == ["a"]


def test_a_slide_that_waits_makes_no_run_necessary_until_it_no_longer_does(folder):
    before, waiting = samples_after(60), samples_after(1)
    assert not has_changes(samples_after(70), before)
    assert has_changes(samples_after(60), waiting)
    touch(folder, "b.tif")
    assert not has_changes(samples_after(1) | before, before)


@pytest.mark.parametrize(
    "change",
    [lambda folder: (folder / "a.tif").unlink(), lambda folder: touch(folder, "a.png")],
    ids=["gone", "refused"],
)
def test_a_removed_or_refused_slide_is_a_change(folder, change):
    before = samples_after(60)
    change(folder)
    assert has_changes(samples_after(60), before)


def test_ten_thousand_slides_are_looked_at_without_opening_one(folder, monkeypatch):
    touch(folder, *(f"plate {number // 100}/{number}.tif" for number in range(10_000)))

    def watched(path, *arguments, **options):
        assert path.suffix != ".tif"
        return unwatched(path, *arguments, **options)

    now_s, unwatched = time.time() + 7200, Path.open
    monkeypatch.setattr(Path, "open", watched)
    assert len(ready(find_samples(SETTINGS, now_s=now_s))) == 10_001
