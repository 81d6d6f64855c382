"""Errors that a user can fix. Each message is one line: what, where, the limit, what to do.

The last line in the log of a failed job has a form that the report can read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE = re.compile(r"^error: (?P<stage>[a-z]+): (?P<message>.*?)(?: \[(?P<kind>[A-Za-z]+)\])?$")
_END_OF_TRACEBACK = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?(?P<kind>[A-Z]\w*)(?:: (?P<message>.*))?$")


class SlidemillError(Exception):
    """An error that the user can fix, shown as one line without a traceback.

    ``stage`` is the stage that found it, if another one reports it.
    """

    def __init__(self, message: object, *, stage: str | None = None) -> None:
        super().__init__(" ".join(str(message).split()))
        self.stage = stage


class ConfigError(SlidemillError):
    """The configuration does not match its schema."""


class SlideError(SlidemillError):
    """One image file cannot be read; only its sample fails."""


class Stopped(BaseException):
    """A signal asked the process to end. Not an Exception, so that ``except Exception`` does not catch it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"stopped by {name} (cancelled, or the time limit was reached); run the same command again")


def user_error(error: BaseException) -> SlidemillError | Stopped | None:
    """Return the error to show to the user; None if it is a bug.

    Clean-up after a signal may fail with an error of its own; then the signal is the reason.
    """
    if isinstance(error, SlidemillError):
        return error
    context: BaseException | None = error
    while context is not None:
        if isinstance(context, Stopped):
            return context
        context = context.__context__
    return None


class Failure(NamedTuple):
    """Why a job failed: the stage that found it, the class of the error (empty if unknown), the message."""

    stage: str
    kind: str
    message: str


def error_line(stage: str, error: SlidemillError | Stopped) -> str:
    """Return the last line of the log of a failed job."""
    found_by = getattr(error, "stage", None) or stage
    return f"error: {found_by}: {error} [{type(error).__name__}]"


def read_failure(log: str, stage: str) -> Failure | None:
    """Return why a job of ``stage`` failed, from the text of its log; None if the log does not say.

    The reason is the last error line, which output of libraries may follow, or the end of a traceback.
    """
    lines = log.strip().splitlines()
    for line in reversed(lines):
        if match := _LINE.match(line):
            return Failure(match["stage"], match["kind"] or "", match["message"])
    last = lines[-1] if lines else ""
    match = _END_OF_TRACEBACK.match(last)
    if match and any(line.startswith("Traceback (most recent call last)") for line in lines):
        return Failure(stage, match["kind"], f"a bug in Slidemill: {last}; see the log")
    return None
