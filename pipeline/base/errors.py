"""Errors that a user can fix. Each message is one line: what, where, the limit, what to do."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

_DECODERS = "imagecodecs"  # the module of their errors, which name a function of C and its code
_LONGEST_REASON = 400
# What readers raise on damaged files by accident; the message means nothing to a user
_LOST = (
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    UnicodeError,
    struct.error,
)
_FOR_PROGRAMMERS = re.compile(r"""\bb'[^']*'|\bb"[^"]*"|<[^<>]* at 0x\w+>""")  # bytes, and objects without a text


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


class StorageError(SlidemillError):
    """Results cannot be written (full disk, quota, no permission); no sample is to blame."""


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
    """Why a sample failed: the stage that found it, the class of the error, one line for the user, the log."""

    stage: str
    error_class: str
    message: str
    log: str = ""


def failure_of(stage: str, error: Exception | Stopped, log: str = "") -> Failure:
    """Return why ``stage`` failed with an exception that may be a user's mistake or a bug."""
    reason = user_error(error)
    if reason is None:
        return Failure(stage, type(error).__name__, f"a bug in Slidemill: {error!r}; see the log", log)
    return Failure(getattr(reason, "stage", None) or stage, type(reason).__name__, str(reason), log)


def error_line(stage: str, error: SlidemillError | Stopped) -> str:
    """Return the last line of the log of a failed job."""
    failure = failure_of(stage, error)
    return f"error: {failure.stage}: {failure.message} [{failure.error_class}]"


def reason_of(error: Exception) -> str:
    """Return what the reader of a file says, in one short line; not what Python says of one that has lost its way."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    words = _FOR_PROGRAMMERS.sub("(...)", " ".join(str(error).split()))
    if isinstance(error, _LOST) or not words:
        return f"damaged, or not as files of its format are ({type(error).__name__})"
    words = words if len(words) <= _LONGEST_REASON else f"{words[:_LONGEST_REASON]} ..."
    return f"compressed data are damaged ({words})" if type(error).__module__ == _DECODERS else words
