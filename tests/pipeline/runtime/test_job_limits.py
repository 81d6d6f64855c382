"""A process may use the smallest limit of SLURM, container and cgroup, whatever the machine has."""

import pytest

from pipeline.runtime.job_limits import Limit, cores, memory_limit

V1 = "memory/memory.limit_in_bytes"


@pytest.fixture
def machine(tmp_path):
    """Pretended /proc and /sys/fs/cgroup: ``machine(membership, {file: text})`` returns both."""

    def pretend(membership, files):
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return {"processes": tmp_path / "proc", "groups": tmp_path / "cgroup"}

    return pretend


@pytest.mark.parametrize(
    ("membership", "files", "mb", "source"),
    [
        (
            "0::/job/step\n",
            {"memory.max": "max", "job/memory.max": "3000000000", "job/step/memory.max": "max"},
            3000,
            "job/memory.max",
        ),
        # Version 1 keeps the path that the group has on the host, which is not there in the container.
        ("5:cpu:/docker/1a\n4:memory:/docker/1a\n", {V1: "2000000000"}, 2000, V1),
        ("0::/\n", {"memory.max": "1000000000"}, 1000, "memory.max"),
    ],
)
def test_the_smallest_limit_up_to_the_root_counts(machine, membership, files, mb, source):
    limit = memory_limit({"SLURM_MEM_PER_NODE": "4000"}, **machine(membership, files))
    assert limit.memory_mb == mb
    assert limit.source.endswith(f"cgroup/{source}")


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("", {}),
        ("0::/\n", {"memory.max": "max"}),
        ("4:memory:/\n", {V1: "9223372036854771712"}),  # none
        ("0::/../elsewhere\n", {"memory.max": "max", "../elsewhere/memory.max": "1000"}),
    ],
)
def test_no_limit_is_none(machine, membership, files):
    assert memory_limit({"SLURM_MEM_PER_NODE": "0"}, **machine(membership, files)) is None


@pytest.mark.parametrize(
    ("environment", "mb", "source"),
    [
        ({"SLURM_MEM_PER_NODE": "2000"}, 2097, "SLURM_MEM_PER_NODE"),  # SLURM's megabytes are MiB
        ({"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"}, 4194, "SLURM_MEM_PER_CPU"),
    ],
)
def test_a_job_of_slurm_has_the_memory_that_it_requested(machine, environment, mb, source):
    assert memory_limit(environment, **machine("0::/\n", {"memory.max": "8000000000"})) == Limit(mb, source)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 64),
        ("0::/job\n", {"job/cpu.max": "250000 100000"}, 3),
        ("5:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1),
        ("5:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_cores_follow_affinity_and_quota(machine, monkeypatch, membership, files, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    place = machine(membership, files)
    assert cores({}, **place) == expected
    assert cores({"SLURM_CPUS_PER_TASK": "2"}, **place) == min(2, expected)
