"""Mistakes and bad inputs that a user can mend. Each message is one line: what, where, the limit, what to do.

The last line that a failed job leaves in its log says so in a form that the report reads back.
"""

from __future__ import annotations

import re

_LINE = re.compile(r"^error: (?P<stage>[a-z]+): (?P<message>.*)$")


class SlidemillError(Exception):
    """Something the user can mend. Shown as one line, never as a traceback.

    ``stage`` names the stage that found it, where that is not the one that reports it.
    """

    def __init__(self, message: object, *, stage: str | None = None) -> None:
        super().__init__(" ".join(str(message).split()))
        self.stage = stage


class ConfigError(SlidemillError):
    """The configuration is not what the schema says."""


class SlideError(SlidemillError):
    """One image file cannot be read. It costs that sample alone."""


def error_line(stage: str, message: object) -> str:
    """Return the last line of the log of a failed job."""
    return f"error: {stage}: {' '.join(str(message).split())}"


def parse_error_line(line: str) -> tuple[str, str] | None:
    """Return the stage and the message of an error line, or None for any other line."""
    match = _LINE.match(line)
    return (match["stage"], match["message"]) if match else None
