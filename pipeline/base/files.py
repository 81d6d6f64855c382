"""Reading and writing of files: a file is complete or does not exist, and carries its provenance."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR
from typing import IO, Any

from pydantic import BaseModel

from pipeline import __version__
from pipeline.base.errors import SlidemillError, StorageError

log = logging.getLogger(__name__)

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/slidemill/slidemill")  # of UUIDs in files
State = list[int] | None  # of a file, as JSON: bytes and time of the last change, ns; None if it is missing

_IN_RUST = re.compile(r"\(os error (\d+)\)$")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_PARTIAL, _LOCK = ".partial-", ".lock"
_LABELS = "labels"  # of an OME-Zarr image: the folder of label images that belong to it
_as_json = json.JSONEncoder(sort_keys=True).encode  # `json.dumps` makes an encoder for every call
_open_locks = set[IO[bytes]]()


@contextmanager
def replacing(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Give a temporary path; move what is written there to ``path`` if the block succeeds, remove it otherwise.

    It may be a file, or, if ``path`` does not exist, a folder. With ``keep`` it is kept if the block fails, so that the
    next attempt can continue with it.

    Raises
    ------
    StorageError
        If writing fails (full disk, quota, no permission).
    """
    temporary, is_done = unfinished(path), False
    folder = temporary.parent
    with _explained(path), _alone_in(folder):
        if not keep:
            _clear(folder)  # what a killed job left
        try:
            with _explained(path):  # before the space is freed
                yield temporary
                if temporary.is_file():
                    with temporary.open("rb") as complete:
                        os.fsync(complete.fileno())
                temporary.replace(path)
                is_done = True
        finally:
            if is_done or not keep:
                shutil.rmtree(folder, ignore_errors=True)


def unfinished(path: Path) -> Path:
    """Return where a file is until it is complete: in a folder, so that it has the suffix of ``path``."""
    return path.parent / f"{_PARTIAL}{path.name}" / path.name


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error in writing into a :class:`StorageError`."""
    try:
        yield
    except SlidemillError:
        raise
    except Exception as error:
        reason = _os_error(error)
        if reason is None:
            raise
        raise StorageError(f"{path}: cannot be written: {why_not_written(path, reason)}") from error


def _os_error(error: BaseException) -> OSError | None:
    """Return the underlying OSError, also if a Rust library wrapped it.

    On a full disk, clean-up may fail with an error of its own; then the first error is in its context.
    """
    if isinstance(error, OSError):
        return error
    if wrapped := _IN_RUST.search(str(error)):
        return OSError(int(wrapped[1]), os.strerror(int(wrapped[1])))
    context = _os_error(error.__context__) if error.__context__ else None
    return context if context and context.errno in _DISK_FULL else None


def sweep(folder: Path, *, is_kept: Callable[[Path], bool]) -> None:
    """Remove the unfinished files that killed jobs left below ``folder``, except those in use or to be kept."""
    for left in list(folder.rglob(f"{_PARTIAL}*")):
        if not is_kept(left.parent / left.name.removeprefix(_PARTIAL)) and not _is_in_use(left):
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
    """Return why ``path`` cannot be written, and what to do about it."""
    what = error.strerror or str(error)
    if error.errno == errno.EDQUOT:
        return f"{what}; delete files, or ask for a higher quota, and run again"
    if error.errno == errno.ENOSPC:
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        free_mb = shutil.disk_usage(folder).free / 1e6
        return f"{what} ({free_mb:.1f} MB are free in {folder}); free some and run again, finished files are kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{what}; make {path.parent} writable and run again"
    return what


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make a folder; wait while another process uses it, such as a job that outlived its run.

    Two processes that write the same file would each rename what the other has not completed.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / _LOCK).open("wb")
        except FileNotFoundError:  # the other process removed the folder just now
            continue
        try:
            with lock:
                _open_locks.add(lock)
                _wait_for(lock, folder)
                if _is_same_file(lock, folder / _LOCK):
                    yield
                    return
        finally:
            _open_locks.discard(lock)
            with suppress(OSError):  # a network file system keeps it while its lock file is open
                folder.rmdir()


def _close_in_child() -> None:
    """Close the locks in a forked process: if it outlived its parent, it would keep the folders locked."""
    while _open_locks:
        _open_locks.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _wait_for(lock: IO[bytes], folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("another process is writing in %s; waiting for it to end", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:  # a file system without locks
        log.info("%s cannot be locked: %s", folder, error.strerror)


def _is_same_file(opened: IO[bytes], path: Path) -> bool:
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
    except (OSError, ValueError, RecursionError) as error:
        raise SlidemillError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(content, dict):
        raise SlidemillError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def finite(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers as JSON can hold them; NaN and infinity, which say that there is no value, become None."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in numbers.items()}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in plain.items()
    }


def spreadsheet_text(text: str) -> str:
    """Return the text of a cell of a CSV file, with an apostrophe if a spreadsheet would read it as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def sha256(path: Path, *parts: Path) -> str:
    """Return the SHA-256 of the content of a file, in hexadecimal.

    For a folder, or a file with ``parts`` (files and folders beside it), it is that of the output of ``sha256sum`` for
    all their files but those below ``labels``: a line with SHA-256, two spaces and the path for each.
    """
    if not parts and not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    root = path if path.is_dir() else path.parent
    files = {file for place in (path, *parts) for file in (place.rglob("*") if place.is_dir() else (place,))}
    files = {file for file in files if _LABELS not in file.relative_to(root).parts}
    lines = (f"{sha256(file)}  {file.relative_to(root).as_posix()}\n" for file in sorted(files) if file.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def state_of(*files: Path) -> str:
    """Return size and time of the last change of files: together they tell a replaced file, whatever its age.

    A folder counts with everything below it; missing files have the state ``missing``.
    """
    return state_text(stats_of(*files))


def state_text(stats: Sequence[os.stat_result]) -> str:
    """Return what :func:`state_of` returns, of files that were looked at already."""
    if not stats:
        return "missing"
    size = sum(stat.st_size for stat in stats)
    if len(stats) == 1:
        return f"{size} bytes, {stats[0].st_mtime_ns} ns"
    each = identity_of([[stat.st_size, stat.st_mtime_ns] for stat in stats])
    return f"{size} bytes, {len(stats)} files {each[:20]}"


def stats_of(*files: Path) -> list[os.stat_result]:
    """Return size, times and so on of files, and of those below folders; nothing of missing ones.

    Below a folder, ``labels`` are passed over: there, label images of an OME-Zarr image are added to it. So the times
    of folders do not count either.
    """
    stats = []
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            stat = file.stat()
            below = list(_stats_below(file)) if S_ISDIR(stat.st_mode) else []
            stats += below or [stat]  # also an empty folder
    return stats


def _stats_below(folder: Path) -> Iterator[os.stat_result]:
    """Yield the stats below a folder, sorted by path; links count as what they lead to, but are not followed further.

    An OME-Zarr image can have many thousand files, so no paths are made: 4 µs a file.
    """
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        with suppress(OSError):  # removed just now, or a broken link
            if not entry.is_dir(follow_symlinks=False):
                yield entry.stat()
            elif entry.name != _LABELS:
                yield from _stats_below(Path(entry.path))


def states_of(files: Iterable[str]) -> list[State]:
    """Return size and time of the last change (ns) of each file, None of a missing one; quick, also for 100,000."""
    states: list[State] = []
    for file in files:
        try:
            stat = os.stat(file)  # noqa: PTH116 (three times as fast)
            states.append([stat.st_size, stat.st_mtime_ns])
        except (OSError, ValueError):
            states.append(None)
    return states


def identity_of(content: Any) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(_as_json(content).encode()).hexdigest()


def provenance(stage: str, config: BaseModel | None = None, /, **inputs: str) -> dict[str, Any]:
    """Return what every output records: stage, version of the package, settings, and SHA-256 of named inputs."""
    return {
        "stage": stage,
        "version": __version__,
        "config": config.model_dump(mode="json") if config else {},
        "sha256": inputs,
    }
