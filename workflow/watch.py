"""Run the workflow whenever slides arrive: ``python workflow/watch.py PROJECT --cores 4``; Ctrl-C ends it.

Snakemake is started only if the drop folder has changed since the last run: a slide is complete, replaced, removed or
refused. A failed slide is tried again after someone fixes it. If another run holds the lock, it is tried again later.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.project.drop.drop_folder import find_samples, has_changes, last_run
from pipeline.settings.schema import read_settings

ROOT = Path(__file__).resolve().parents[1]
CONFIG = Path("config/config.yaml")
LONGEST_PAUSE_S = 600


def watch(command: list[str], every_s: float) -> None:
    """Run ``command`` for the project in the current folder each time that the drop folder has changed."""
    pause_s = every_s
    while True:
        if is_due():
            before = last_run().samples
            run(command)
            # A run that could not begin (locked, a wrong configuration) is tried again after longer and longer pauses
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S) if last_run().samples == before else every_s
        time.sleep(pause_s)


def is_due() -> bool:
    """Return whether a run has something to do; print an error if that cannot be decided."""
    try:
        settings = read_settings(CONFIG)
        found = find_samples(settings)
    except (SlidemillError, OSError) as error:
        print(f"watch: {' '.join(str(error).split())}", file=sys.stderr)
        return False
    return bool(found) and has_changes(found, last_run().samples)


def run(command: list[str]) -> None:
    """Run to the end, also if this process is asked to stop: Snakemake receives Ctrl-C too, and cleans up."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    except SystemExit:
        process.terminate()
        process.wait()
        raise


def main(arguments: list[str]) -> int:
    """Watch one project until Ctrl-C (or SIGTERM); all flags except ``--every`` are passed to Snakemake."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("project", type=Path)
    parser.add_argument("--every", type=float, default=30, metavar="SECONDS")
    known, for_snakemake = parser.parse_known_args(arguments)
    project = known.project.resolve()
    os.chdir(project)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"watching {project}; Ctrl-C ends it", file=sys.stderr)
    try:
        watch([sys.executable, "-m", "snakemake", "--directory", str(project), *for_snakemake], known.every)
    except KeyboardInterrupt:
        print("\nwatch: stopped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
