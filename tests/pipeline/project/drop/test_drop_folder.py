"""Slides in the drop folder are segmented, wait, or are refused; replaced ones are noticed."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.project.drop.drop_folder import (
    Sample,
    find_samples,
    has_changes,
    last_run,
    refuse_for_cluster,
    settle,
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


def test_a_folder_is_looked_at_to_the_bottom(folder):
    """A chunk far down makes it wait, and a new, replaced or removed one is another version, however old the rest."""
    chunks = folder / "b.ome.zarr" / "0" / "c" / "0"
    chunks.mkdir(parents=True)
    (folder / "b.ome.zarr" / "zarr.json").write_text("{}")
    versions = [samples_after(60)["b"].version]
    for change in (
        lambda: (chunks / "1").write_bytes(b"pixels"),
        lambda: (chunks / "1").write_bytes(b"other "),
        lambda: os.utime(chunks / "1", (1, 1)),
        lambda: (chunks / "2").symlink_to(chunks),  # not followed, or it would never end
        (chunks / "1").unlink,
    ):
        write_samples(samples_after(2 * 3600), "snakemake", "")
        change()
        assert samples_after(5)["b"].just_changed
        versions.append(samples_after(2 * 3600)["b"].version)
    assert len(set(versions)) == len(versions)
    assert samples_after(2 * 3600)["b"] == samples_after(60)["b"]


def test_a_file_of_a_set_is_noticed_that_an_older_one_of_the_same_size_replaces(folder):
    (folder / "set.companion.ome").write_text('<UUID FileName="z1.ome.tif"/><UUID FileName="z2.ome.tif"/>')
    touch(folder, "z1.ome.tif", "z2.ome.tif")
    before = samples_after(60)["set"]
    for first_s, second_s in ((1, 2), (2, 1)):  # also if two files trade places
        os.utime(folder / "z1.ome.tif", (first_s, first_s))
        os.utime(folder / "z2.ome.tif", (second_s, second_s))
        after = samples_after(60)["set"]
        assert after.version != before.version
        assert after.size_mb == before.size_mb > 0
        before = after


def test_a_segmented_slide_does_not_wait_after_its_permissions_change(folder):
    write_samples(samples_after(60), "snakemake", "")
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
    sample = Sample(slide=f"data/slides/{name}/a.tif", version="1 bytes, 2 ns", batch=f"{name}/0001")
    script = f"printf %s {f'tile:model=net,batch={name}/0001'!r}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    result = refuse_for_cluster({f"{name}/a": sample})[f"{name}/a"]
    assert result.is_ready == (done.stdout == f"tile:model=net,batch={name}/0001")
    assert result.is_ready or "rename it" in result.refused


def test_a_comma_is_refused_on_a_cluster_and_a_slide_refused_there_is_no_change():
    found = {"a, b/x": Sample(slide="a, b/x.tif", batch="a, b/0001"), "c, d": Sample(slide="c, d.tif", batch="0001")}
    refused = refuse_for_cluster(found)
    assert ready(refused) == ["c, d"]
    assert not has_changes(found, refused)
    assert has_changes(found, refused | {"a, b/x": Sample(slide="a, b/x.tif", refused="another reason")})


def test_two_references_of_one_slide_cost_that_slide(folder):
    touch(folder.parent / "references", "a.tif", "a.png", "b.tif")
    touch(folder, "b.tif")
    found = samples_after(60)
    assert "its reference" in found["a"].refused
    assert found["b"].reference == "data/references/b.tif"
    assert ready(found) == ["b"]


def test_jobs_and_report_use_what_the_run_found(folder):
    found = samples_after(60)
    write_samples(found, "snakemake --cores 2", "abc")
    touch(folder, "late.tif")
    assert last_run().samples == found
    assert (last_run().command, last_run().report) == ("snakemake --cores 2", "abc")


def test_a_slide_that_waits_or_is_away_for_a_time_returns_to_its_batch(folder):
    touch(folder, "plate/a.tif")
    write_samples(samples_after(60), "snakemake", "")
    touch(folder, "plate/b.tif")
    found = samples_after(60)
    write_samples(found, "snakemake", "")
    assert found["plate/b"].batch == "plate/0002"
    away = folder.rename(folder.parent / "away")
    folder.mkdir()
    write_samples(samples_after(60), "snakemake", "")
    folder.rmdir()
    away.rename(folder)
    assert {name: sample.batch for name, sample in samples_after(60).items()} == {
        name: sample.batch for name, sample in found.items()
    }
    waiting = samples_after(-5)["plate/b"]
    assert (waiting.is_ready, waiting.batch) == (False, "plate/0002")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"samples": {"a": {"unknown": 1}}}', '{"samples": []}'])
def test_without_a_list_that_can_be_read_the_folder_is_looked_at(folder, content):
    (folder.parents[1] / "results").mkdir()
    (folder.parents[1] / "results" / "slides.json").write_text(content)
    assert last_run().samples == {}
    assert list(samples_after(60)) == ["a"]


def test_a_slide_that_waits_makes_no_run_necessary_until_it_no_longer_does(folder):
    before, waiting = samples_after(60), samples_after(1)
    assert not has_changes(samples_after(70), before)
    assert has_changes(samples_after(60), waiting)
    touch(folder, "b.tif")
    assert not has_changes(samples_after(1) | before, before)


def test_if_all_slides_changed_just_now_a_run_waits_for_them(folder, monkeypatch):
    waited, began_s = [], time.time()
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(time, "time", lambda: began_s + 6 * len(waited))
    assert ready(settle(SETTINGS, find_samples(SETTINGS))) == ["a"]
    assert waited == [10, 10]  # the clock of this test runs slowly
    touch(folder, "bad{}.tif")
    assert ready(settle(SETTINGS, samples_after(-10))) == []  # a bad name is reported at once
    assert waited == [10, 10]


def test_a_replaced_reference_is_a_change_also_where_it_is_older(folder):
    touch(folder.parent / "references", "a.tif")
    before = samples_after(60)
    os.utime(folder.parent / "references" / "a.tif", (10**9, 10**9))
    after = samples_after(60)
    assert before["a"].reference_version != after["a"].reference_version
    assert has_changes(after, before)


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
