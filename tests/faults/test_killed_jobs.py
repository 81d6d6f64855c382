"""What a run says of jobs that were killed alone, or that outlive it; a second run at the same time."""

import os
import signal
import time

from tests.support.killing import (
    check_complete,
    finish,
    messages,
    processes,
    replace_slides,
    results,
    stages,
    start,
    wait_for,
)


def test_a_job_that_outlives_its_killed_run_does_not_disturb_the_next_one(project, expected):
    replace_slides(project, "alone")
    run = start(project)
    wait_for(project, run, "predict")
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert "predict" in stages(run)
    assert "the last run was killed; its lock is removed" in finish(project)
    assert results(project) == expected
    while processes(run):
        time.sleep(0.1)
    check_complete(project)


def test_the_row_of_a_job_that_is_killed_each_time_says_so_and_names_its_log(project, expected):
    """As by the kernel when memory runs out."""
    replace_slides(project, "alone")
    run = start(project)
    wait_for(project, run, "predict")
    log = project.folder / "logs/predict/net/0001.log"
    while run.poll() is None:
        for process, words in processes(run).items():
            if words[1:4] == ["-m", "pipeline", "predict"] and log.exists() and log.read_text():
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    assert run.returncode != 0
    row = project.metrics().loc["alone"]
    assert (row["status"], row["stage"]) == ("failed", "predict")
    assert project.folder / row["log"] == log
    assert "probably killed" in row["error"]
    assert f"failed: alone at predict: {row['error']} ({row['log']})" in messages(project)
    assert ": slidemill predict --model" in log.read_text()
    finish(project)
    assert results(project) == expected


def test_a_second_run_at_the_same_time_is_refused(project, expected, tmp_path):
    replace_slides(project, "alone")
    first = start(project)
    wait_for(project, first, "tile")
    second = start(project, log=tmp_path / "second.log")
    assert second.wait() != 0
    assert "wait until it has ended" in (tmp_path / "second.log").read_text()
    assert first.wait() == 0, messages(project)
    assert results(project) == expected
