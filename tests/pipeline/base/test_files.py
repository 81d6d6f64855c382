"""A file is complete under its final name or not there at all."""

import fcntl
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.base.files import read_json, replacing, sha256, sweep, write_json, write_text

ENVIRONMENT = {"PYTHONPATH": ":".join(sys.path)}


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from pipeline.base.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half of'); print('writing', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x.txt")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "x.txt").exists()
    write_text(tmp_path / "x.txt", "whole")  # the next run clears what the killed one left behind
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_a_second_writer_waits_for_the_first_and_both_are_whole(tmp_path):
    """As a job that outlived its run, and the one of the next run."""
    code = (
        "import sys, time; from pathlib import Path; from pipeline.base.files import replacing\n"
        "with replacing(Path('x.txt')) as temporary:\n"
        "    temporary.write_text('half'); print('writing', flush=True)\n"
        "    sys.stdin.readline(); assert temporary.read_text() == 'half'; temporary.write_text(sys.argv[1])"
    )
    start = partial(
        subprocess.Popen, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    first = start([sys.executable, "-c", code, "first"])
    assert first.stdout.readline() == "writing\n"
    second = start([sys.executable, "-c", code, "second"])
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)
    first.communicate("\n")
    assert (first.returncode, (tmp_path / "x.txt").read_text()) == (0, "first")
    second.communicate("\n")
    assert (second.returncode, (tmp_path / "x.txt").read_text()) == (0, "second")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_files_of_killed_jobs_are_removed_unless_they_are_in_use_or_kept(tmp_path):
    for name in ("a/.partial-dead.csv", "a/.partial-kept.zip", "a/.partial-alive.csv"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "half").touch()
    with (tmp_path / "a/.partial-alive.csv/.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(tmp_path, is_kept=lambda path: path == tmp_path / "a" / "kept.zip")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {".partial-kept.zip", ".partial-alive.csv"}


def test_a_kept_file_is_there_for_the_next_attempt(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "x", keep=True) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not (tmp_path / "x").exists()
    with replacing(tmp_path / "x", keep=True) as temporary, temporary.open("a") as file:
        file.write(" and half")
    assert (tmp_path / "x").read_text() == "half and half"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("error", "later"),
    [
        (OSError(28, "No space left on device"), None),
        (OSError(28, "No space left on device"), ValueError("cannot be closed")),
        (Exception("I/O error: No space left on device (os error 28)"), None),  # of a library in Rust
    ],
)
def test_a_full_disk_is_reported_also_by_a_wrapped_error(tmp_path, error, later):
    def fail():
        try:
            raise error
        finally:
            if later:
                raise later

    reason = r"x: cannot be written: No space left on device \([0-9.]+ MB are free in "
    with pytest.raises(SlidemillError, match=reason), replacing(tmp_path / "x"):
        fail()


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000], ids=len)
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SlidemillError, match="x.json: "):
        read_json(tmp_path / "x.json")


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(b"slide")
    assert sha256(tmp_path / "x") == hashlib.sha256(b"slide").hexdigest()


def test_sha256_of_a_folder_or_a_set_is_that_of_names_and_contents(tmp_path):
    """As `sha256sum` lists them, in the order of their paths."""
    (tmp_path / "x.zarr" / "0").mkdir(parents=True)
    (tmp_path / "x.zarr" / "0" / "chunk").write_bytes(b"pixels")
    (tmp_path / "x.zarr" / ".zattrs").write_bytes(b"{}")
    lines = f"{hashlib.sha256(b'{}').hexdigest()}  .zattrs\n{hashlib.sha256(b'pixels').hexdigest()}  0/chunk\n"
    assert sha256(tmp_path / "x.zarr") == hashlib.sha256(lines.encode()).hexdigest()
    (tmp_path / "x.zarr" / "labels" / "nuclei").mkdir(parents=True)
    (tmp_path / "x.zarr" / "labels" / "nuclei" / "chunk").write_bytes(b"ids")
    assert sha256(tmp_path / "x.zarr") == hashlib.sha256(lines.encode()).hexdigest()  # without labels
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    alone, together = sha256(tmp_path / "a"), sha256(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b").write_bytes(b"changed")
    assert alone == sha256(tmp_path / "a")
    assert together != sha256(tmp_path / "a", tmp_path / "b")


def test_a_forked_process_that_outlives_a_writer_keeps_nothing_locked(tmp_path):
    with replacing(tmp_path / "a") as temporary:
        temporary.touch()
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
    try:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("second")
    finally:
        child.kill()
        child.join()
    assert (tmp_path / "a").read_text() == "second"
