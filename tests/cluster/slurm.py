"""A run through a real SLURM ends with the masks of a local run, also if jobs, nodes and the controller fail.

`make test-slurm` runs this file; pytest does not find it by itself, since it needs root and SLURM's daemons.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.daemons import Cluster, running_cluster
from tests.cluster.projects import ODD, Project, Run, demo_with_network, trained_demo
from tests.support.paths import ROOT

ALL_DONE = {f"plate/{name}": "done" for name in ("nuclear", "nuclei", ODD)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slidemill-slurm-") as folder, running_cluster(Path(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Project:
    """The demo, trained and segmented on this machine."""
    project = trained_demo(tmp_path_factory.mktemp("local") / "demo")
    project.run_here()
    assert project.statuses == ALL_DONE
    return project


@pytest.fixture
def project(tmp_path, local) -> Project:
    """The same slides, and the network that was trained."""
    return demo_with_network(tmp_path / "demo", local)


@pytest.fixture
def run(cluster: Cluster, project) -> Iterator[Run]:
    """A run of that project through the cluster, in the background."""
    cluster.wait_for("idle node", cluster.is_idle)
    begun = project.run_on_slurm()
    yield begun
    begun.stop()


@pytest.fixture
def say(capsys):
    """Print, also if the test passes."""
    with capsys.disabled():
        print()

    def printed(line: str) -> None:
        with capsys.disabled():
            print(f"    {line}")

    return printed


def job_of(cluster, run, rule: str, state: str, *, other_than: str = "") -> str:
    """Wait for a job of a rule in a state; return its id."""
    found: list[str] = []

    def look() -> bool:
        assert not run.has_ended, f"the run ended early\n{run.text}"
        found.extend(
            job for job, now, purpose in jobs(cluster, run) if now == state and rule in purpose and job != other_than
        )
        return bool(found)

    cluster.wait_for(f"{rule} job that is {state}", look, within_s=180)
    return found[0]


def jobs(cluster, run) -> list[tuple[str, str, str]]:
    """Id, state and purpose of every job of a run."""
    lines = cluster.command("squeue", "--noheader", "--states=all", "--sort=i", "--format=%i|%T|%k").splitlines()
    return [
        (job, state, purpose) for job, state, purpose in (line.split("|", 2) for line in lines) if job in run.job_ids
    ]


def states(cluster, run) -> dict[str, str]:
    """The state of every job of a run, by id."""
    return {job: state for job, state, _ in jobs(cluster, run)}


def gpu_jobs(cluster) -> set[str]:
    """The jobs that asked for a GPU."""
    lines = cluster.command("squeue", "--noheader", "--states=all", "--Format=JobID:20,tres-per-job:40").splitlines()
    return {job for job, asked in map(str.split, lines) if asked == "gres:gpu:1"}


def check(cluster, project, run, say) -> None:
    """Check that a run ends well, with all samples done; print its jobs and the hashes of the masks."""
    status = run.wait()
    assert status == 0, f"exit status {status}\n{run.text}\n{cluster.report()}"
    assert project.statuses == ALL_DONE
    asked = gpu_jobs(cluster)
    for job, state, purpose in jobs(cluster, run):
        say(f"job {job} {state}: {purpose}{' on a GPU' if job in asked else ''}")
    for name, digest in project.masks.items():
        say(f"{digest}  {name}")


def test_training_on_slurm_gives_the_network_and_masks_of_a_local_run(cluster, local, tmp_path, say):
    project = trained_demo(tmp_path / "demo")
    run = project.run_on_slurm()
    try:
        check(cluster, project, run, say)
    finally:
        run.stop()
    assert project.weights == local.weights
    assert project.pixels == local.pixels
    assert set(states(cluster, run).values()) == {"COMPLETED"}
    asked = gpu_jobs(cluster)
    for job, _, purpose in jobs(cluster, run):
        assert (job in asked) == purpose.startswith(("rule_train", "rule_predict")), purpose


def test_a_job_goes_by_what_it_asked_for(cluster, tmp_path):
    """Snakemake's plugin hides it from its jobs, whose limits are those of cgroups; others see it."""
    code = "from pipeline.runtime.job_limits import *; print(memory_limit().memory_mb, cores())"
    ask = f"cd {ROOT}; {sys.executable} -c '{code}'"
    said = tmp_path / "said"
    cluster.command("sbatch", "--wait", "--mem=500", "--cpus-per-task=1", f"--output={said}", "--wrap", ask)
    assert said.read_text().split() == ["524", "1"]  # MiB


def test_a_run_outlives_a_drained_node_a_killed_job_and_a_restart_of_the_controller(cluster, project, run, local, say):
    job_of(cluster, run, "tile", "RUNNING")
    cluster.command("scontrol", "update", f"nodename={cluster.node}", "state=drain", "reason=test")
    try:
        waiting = job_of(cluster, run, "predict", "PENDING")
        time.sleep(3)
        assert states(cluster, run)[waiting] == "PENDING"
    finally:
        cluster.command("scontrol", "update", f"nodename={cluster.node}", "state=resume")
    say(f"job {waiting} waited for the node to come back")
    killed = job_of(cluster, run, "predict", "RUNNING")
    cluster.command("scancel", killed)
    killed_s = time.time()
    say(f"job {killed} killed")
    again = job_of(cluster, run, "predict", "RUNNING", other_than=killed)
    # A job that has not begun its step waits for minutes, since SLURM asks for one ever more seldom.
    logs = project.folder / "logs" / "predict"
    cluster.wait_for("log of prediction", lambda: any(path.stat().st_mtime > killed_s for path in logs.rglob("*.log")))
    cluster.stop("slurmctld")
    time.sleep(3)
    cluster.start_controller()
    say(f"the controller was away for 3 s while job {again} ran")
    check(cluster, project, run, say)
    assert project.masks == local.masks
    assert (states(cluster, run)[killed], states(cluster, run)[again]) == ("CANCELLED", "COMPLETED")
