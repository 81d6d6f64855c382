"""Files as stages leave them: complete under their final name or not there at all, and saying where they are from."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel

from pipeline import __version__
from pipeline.base.errors import SlidemillError

log = logging.getLogger(__name__)

_IN_RUST = re.compile(r"\(os error (\d+)\)$")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_PARTIAL, _LOCK = ".partial-", ".lock"


@contextmanager
def replacing(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Give a temporary name beside ``path``; rename it to ``path`` when the block ends well, remove it otherwise.

    What is written there is a file, or a folder where ``path`` does not exist yet.

    Parameters
    ----------
    path : Path
    keep : bool
        Do not remove it: the block finds it again, under the same name, when it is tried next.

    Raises
    ------
    SlidemillError
        If the operating system refuses to write (full disk, quota, no permission).
    """
    folder = path.parent / f"{_PARTIAL}{path.name}"  # of its own, so that the file has its suffix from the start
    temporary, is_done = folder / path.name, False
    with _explained(path), _alone_in(folder):
        if not keep:
            _clear(folder)  # of what a killed job left behind
        try:
            with _explained(path):  # before the room is given back
                yield temporary
                if temporary.is_file():
                    with temporary.open("rb") as complete:
                        os.fsync(complete.fileno())
                temporary.replace(path)
                is_done = True
        finally:
            if is_done or not keep:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Make one line of what the operating system says where it refuses to write."""
    try:
        yield
    except SlidemillError:
        raise
    except Exception as error:
        reason = _of_the_system(error)
        if reason is None:
            raise
        raise SlidemillError(f"{path}: cannot be written: {why_not_written(path, reason)}") from error


def _of_the_system(error: BaseException) -> OSError | None:
    """Return an error as the one of the operating system that it is, also where a library in Rust wraps it.

    Where nothing more can be written, what cleans up behind it may fail with an error of its own.
    """
    if isinstance(error, OSError):
        return error
    if wrapped := _IN_RUST.search(str(error)):
        return OSError(int(wrapped[1]), os.strerror(int(wrapped[1])))
    behind = _of_the_system(error.__context__) if error.__context__ else None
    return behind if behind and behind.errno in _NO_ROOM else None


def sweep(folder: Path, kept: Collection[Path]) -> None:
    """Remove what killed jobs left below ``folder``, not what is being written, nor what will be one of ``kept``."""
    for left in list(folder.rglob(f"{_PARTIAL}*")):
        if left.parent / left.name.removeprefix(_PARTIAL) not in kept and not _is_in_use(left):
            shutil.rmtree(left, ignore_errors=True)


def _is_in_use(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def why_not_written(path: Path, error: OSError) -> str:
    """Return what keeps the operating system from writing ``path``, and what to do about it."""
    what = error.strerror or str(error)
    if error.errno == errno.EDQUOT:
        return f"{what}; remove files of yours, or have it raised, and run again"
    if error.errno == errno.ENOSPC:
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        free_mb = shutil.disk_usage(folder).free / 1e6
        return f"{what} ({free_mb:.1f} MB are free in {folder}); free some and run again, what is done stays"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{what}; make {path.parent} writable and run again"
    return what


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make a folder; wait while another process is in it, as a job may be that outlived its run.

    Two that write one file would each rename what the other has not completed.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / _LOCK).open("wb")
        except FileNotFoundError:  # the other process removed the folder just now
            continue
        try:
            with lock:
                _wait_for(lock, folder)
                if _is(lock, folder / _LOCK):
                    yield
                    return
        finally:
            with suppress(OSError):  # a network file system keeps it while the lock in it is open
                folder.rmdir()


def _wait_for(lock: IO[bytes], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("another process is writing in %s; waiting for it to end", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:  # a file system without locks
        log.info("%s cannot be locked: %s", folder, error.strerror)


def _is(opened: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _LOCK:
            entry.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, all or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, all or nothing."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise :class:`SlidemillError` where the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SlidemillError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(content, dict):
        raise SlidemillError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def spreadsheet_text(text: str) -> str:
    """Return a cell of a CSV file that no spreadsheet program takes for a formula, with an apostrophe before one."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def sha256(path: Path, *parts: Path) -> str:
    """Return the SHA-256 of the content of a file, in hexadecimal.

    Of a folder, or of a file with ``parts`` (files and folders) beside it, it is that of a list of all files in them:
    a line with SHA-256, two spaces and the path for each.
    """
    if not parts and not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    root = path if path.is_dir() else path.parent
    files = {file for place in (path, *parts) for file in (place.rglob("*") if place.is_dir() else (place,))}
    lines = (f"{sha256(file)}  {file.relative_to(root).as_posix()}\n" for file in sorted(files) if file.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def provenance(stage: str, config: BaseModel | None = None, /, **inputs: str) -> dict[str, Any]:
    """Return what every output carries: stage, package version, resolved settings, and sha256 of named inputs."""
    return {
        "stage": stage,
        "version": __version__,
        "config": config.model_dump(mode="json") if config else {},
        "sha256": inputs,
    }
