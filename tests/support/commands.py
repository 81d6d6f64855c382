"""Stages and commands as tests run them: in this process, or in one of their own that is measured."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from pipeline.__main__ import main

_WITH_PEAK = """
import sys
from pipeline.__main__ import main
code = main(sys.argv[1:])
with open("/proc/self/status") as file:
    peak = next(line for line in file if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024)
sys.exit(code)
"""


def run_command(name: str, **flags: object) -> int:
    """Run a stage or command; a flag is its name and value, with a list for several values."""
    words = [name]
    for flag, value in flags.items():
        words += [f"--{flag.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return main(words)


def run_stage(stage: str, *flags: object, config: str, before: Callable[[], object] | None = None) -> tuple[float, int]:
    """Run a stage as a process, in which ``before`` comes first; return its wall time in s and peak memory in bytes."""
    command = [sys.executable, "-c", _WITH_PEAK, stage, *map(str, flags), "--config", config]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=before)
    return time.perf_counter() - start, int(done.stdout.split()[-1])
