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


def test_a_job_that_outlives_its_killed_run_and_a_second_run_do_not_disturb_the_next_one(project, expected, tmp_path):
    """The second run is refused, since it would write the same files."""
    replace_slides(project, "alone")
    killed = start(project)
    wait_for(project, killed, "predict")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert "predict" in stages(killed)
    following = start(project)
    wait_for(project, following, "predict")
    second = start(project, log=tmp_path / "second.log")
    assert second.wait() != 0
    assert "wait until it has ended" in (tmp_path / "second.log").read_text()
    assert following.wait() == 0, messages(project)
    assert "the last run was killed; its lock is removed" in messages(project)
    assert results(project) == expected
    while processes(killed):
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
