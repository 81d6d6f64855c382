"""The lock of a killed run is removed, that of a running one never is."""

import platform
import subprocess
import sys

import pytest

from pipeline.base.errors import SlidemillError
from pipeline.project.run_lock import lock_project

RUN = """
import sys, time
from pathlib import Path
from pipeline.project.run_lock import lock_project
print(lock_project(), flush=True)
locks = Path(".snakemake/locks")
if "run" in sys.argv:  # as Snakemake does, after it has read the rules
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/metrics.csv")
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that looks at the project, or runs it; return it and whether it removed a lock."""
    started = []

    def begin(*words):
        command = [sys.executable, "-c", RUN, *words]
        process = subprocess.Popen(
            command, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)}, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline() == "True\n"

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def locks(tmp_path):
    return list(tmp_path.glob(".snakemake/locks/*"))


def start_run(tmp_path, start):
    """Start a run, and wait for its lock."""
    run, _ = start("1000", "run")
    while not locks(tmp_path):
        pass
    return run


def kill(process):
    process.kill()
    process.wait()


def test_the_lock_of_a_killed_run_is_removed(tmp_path, start):
    kill(start_run(tmp_path, start))
    assert locks(tmp_path)
    _, was_killed = start("0")
    assert was_killed
    assert not locks(tmp_path)
    assert not start("0")[1]


def test_the_lock_of_a_running_one_stays_whatever_else_is_started(tmp_path, start):
    run = start_run(tmp_path, start)
    looking, was_killed = start("1000")
    assert not was_killed
    assert not start("0")[1]
    kill(looking)
    assert not start("0")[1]
    assert locks(tmp_path)
    kill(run)
    assert start("0")[1]


def test_a_run_that_began_beside_another_process_is_safe_too(tmp_path, start):
    start("1000")
    start_run(tmp_path, start)
    assert not start("0")[1]
    assert locks(tmp_path)


def test_the_lock_of_a_run_on_another_machine_stays(tmp_path, start, monkeypatch):
    kill(start_run(tmp_path, start))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platform, "node", lambda: "elsewhere")
    assert not lock_project()
    assert locks(tmp_path)


def test_a_full_disk_is_an_error_before_a_run_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.project.run_lock._LEAST_BYTES", 2**80)
    monkeypatch.setattr("logging.raiseExceptions", True)
    with pytest.raises(SlidemillError, match=r"\.snakemake: cannot be written: No space left on device \("):
        lock_project()


def test_a_run_begins_also_without_locks(in_folder):
    (in_folder / ".snakemake").touch()  # no folder, so that nothing can be opened in it
    assert not lock_project()


def test_a_run_that_begins_while_another_works_is_refused_and_a_dry_run_is_not(tmp_path, start, monkeypatch):
    start_run(tmp_path, start)
    monkeypatch.chdir(tmp_path)
    assert not lock_project()
    with pytest.raises(SlidemillError, match=f"^another run is working in {tmp_path}: wait until it has ended$"):
        lock_project(begins=True)
    assert locks(tmp_path)
