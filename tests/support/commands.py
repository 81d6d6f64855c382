"""Stages and commands as tests run them: in this process, or in one of their own that is measured."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from pipeline.__main__ import main
from tests.support.paths import ROOT

# Samples are worked on in processes of the stage: the peak is that of the largest of all. What the system says of this
# process itself begins with the one that started it, except VmHWM.
_WITH_PEAK = """
import resource, sys
from pipeline.__main__ import main
code = main(sys.argv[1:])
with open("/proc/self/status") as file:
    own_kib = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
print(max(own_kib, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024)
sys.exit(code)
"""


def run_command(name: str, **flags: object) -> int:
    """Run a stage or command; a flag is its name and value, with a list for several values."""
    words = [name]
    for flag, value in flags.items():
        words += [f"--{flag.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return main(words)


def run_stage(words: list[str], *, before: Callable[[], object] | None = None) -> tuple[float, int]:
    """Run a stage as a process, in which ``before`` comes first; return its wall time in s and peak memory in bytes.

    The peak is that of one process, the largest, since processes share the libraries.
    """
    command = [sys.executable, "-c", _WITH_PEAK, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=before, env=environment)
    return time.perf_counter() - start, int(done.stdout.split()[-1])
