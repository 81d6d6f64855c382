"""Mistakes and bad inputs that a user can mend. Each message is one line: what, where, the limit, what to do.

The last line that a failed job leaves in its log says so in a form that the report reads back.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(r"^error: (?P<stage>[a-z]+): (?P<message>.*?)(?: \[(?P<kind>[A-Za-z]+)\])?$")
_END_OF_TRACEBACK = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?(?P<kind>[A-Z]\w*)(?:: (?P<message>.*))?$")


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


class Stopped(BaseException):
    """The process was asked to end by a signal. Not an Exception: what handles errors must not handle it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"stopped by {name}, as a cancelled job is, or one that is out of time; run the same command again"
        )


def user_error(error: BaseException) -> SlidemillError | Stopped | None:
    """Return what there is to say of an error: itself, or that the process was asked to end; None of a defect.

    What is interrupted anywhere may fail to clean up behind itself, with an error of its own.
    """
    if isinstance(error, SlidemillError):
        return error
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, Stopped):
            return behind
        behind = behind.__context__
    return None


class Failure(NamedTuple):
    """Why a job failed: the stage that found it, the class of the error (empty where it is not known), the message."""

    stage: str
    kind: str
    message: str


def error_line(stage: str, error: SlidemillError | Stopped) -> str:
    """Return the last line of the log of a failed job."""
    found_by = getattr(error, "stage", None) or stage
    return f"error: {found_by}: {error} [{type(error).__name__}]"


def read_failure(log: str, stage: str) -> Failure | None:
    """Return why a job of ``stage`` failed from what it logged; None where it left no reason.

    The reason is the last error line, which libraries may talk on after; or the last line, the end of the traceback of
    a defect.
    """
    lines = log.strip().splitlines()
    for line in reversed(lines):
        if match := _LINE.match(line):
            return Failure(match["stage"], match["kind"] or "", match["message"])
    last = lines[-1] if lines else ""
    match = _END_OF_TRACEBACK.match(last)
    if match and any(line.startswith("Traceback (most recent call last)") for line in lines):
        return Failure(stage, match["kind"], f"stopped by a defect: {last}; see the log")
    return None
