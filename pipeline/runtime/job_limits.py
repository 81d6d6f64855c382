"""Memory and cores that this process may use, by SLURM, containers and cgroups instead of the whole machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_MIB = 2**20
_NO_LIMIT = 2**60  # bytes; cgroup v1 writes the largest multiple of a page for "none"


class Limit(NamedTuple):
    """Memory that may be used, in MB, and where the limit comes from."""

    memory_mb: int
    source: str


def memory_limit(
    environment: Mapping[str, str] = os.environ, processes: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")
) -> Limit | None:
    """Return the smallest limit on the memory of this process; None without a limit."""
    found = [*_limits_of_slurm(environment), *_limits_of_cgroups(processes / "self" / "cgroup", groups)]
    return min(found, default=None)


def cores(
    environment: Mapping[str, str] = os.environ, processes: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return how many cores this process may use, at least 1."""
    found = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    found += _numbers(environment, "SLURM_CPUS_PER_TASK")
    for folder in _folders_of(processes / "self" / "cgroup", groups, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        quota, period = (
            (quota, period) if period else (_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))
        )
        if quota.isdecimal() and period.isdecimal():
            found.append(math.ceil(int(quota) / int(period)))
    return max(1, min(found))


def _limits_of_slurm(environment: Mapping[str, str]) -> Iterator[Limit]:
    """Yield the memory of a SLURM job, given in MiB; absent or 0 if it may use the whole node."""
    for mib in _numbers(environment, "SLURM_MEM_PER_NODE"):
        yield Limit(mib * _MIB // 10**6, "SLURM_MEM_PER_NODE")
    for mib in _numbers(environment, "SLURM_MEM_PER_CPU"):
        for count in _numbers(environment, "SLURM_CPUS_ON_NODE"):
            yield Limit(mib * count * _MIB // 10**6, "SLURM_MEM_PER_CPU")


def _limits_of_cgroups(membership: Path, groups: Path) -> Iterator[Limit]:
    for folder in _folders_of(membership, groups, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _text(folder / name)
            if text.isdecimal() and int(text) < _NO_LIMIT:
                yield Limit(int(text) // 10**6, str(folder / name))


def _folders_of(membership: Path, groups: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the cgroups (version 1 or 2) of this process, up to the root.

    In a container the root may be the group of the container, whatever the path of the process.
    """
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = groups / controllers if controllers else groups
            inside = Path(path.lstrip("/"))
            yield from (root / part for part in (inside, *inside.parents) if ".." not in part.parts)


def _numbers(environment: Mapping[str, str], name: str) -> list[int]:
    text = environment.get(name, "")
    return [int(text)] if text.isdecimal() and int(text) else []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
