"""Stages and commands as tests run them: in this process, from flags to the exit status."""

from __future__ import annotations

from pipeline.__main__ import main


def run_command(name: str, **flags: object) -> int:
    """Run a stage or command; a flag is its name and value, with a list for several values."""
    words = [name]
    for flag, value in flags.items():
        words += [f"--{flag.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return main(words)
