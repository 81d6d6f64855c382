"""A pool of processes that outlives its tasks: one that crashes or takes too much memory costs that task alone."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from pipeline.base.errors import SlideError, Stopped
from pipeline.runtime.signals import ENDING
from pipeline.runtime.threads import use_threads

Value = TypeVar("Value")

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_TO_WORKERS = tuple(set(ENDING) - {signal.SIGINT})  # Ctrl-C reaches the parent, which ends its processes in order
_WORK_MB = 1000  # what libraries take to work, beside what a call decodes


class ProcessLostError(SlideError):
    """The process of a call crashed, or was refused more memory."""


def run_all(
    calls: Sequence[Callable[[], Value]], *, workers: int, threads: int, memory_mb: int
) -> Iterator[tuple[int, Future[Value]]]:
    """Run calls in processes; yield the number and the outcome of each as soon as it is there.

    Parameters
    ----------
    calls : sequence of callables
        Without arguments, made of functions of modules (``functools.partial``), so that they can be sent to a process.
    workers : int
        Processes. On Linux they are forked, so that libraries are loaded once.
    threads : int
        Threads of each process.
    memory_mb : int
        What a call may take beside the libraries, in MB; above it, the system refuses more memory (Linux).

    Yields
    ------
    (int, Future)
        The result of the future is that of the call. It raises what the call raised, or :class:`ProcessLostError`.
    """
    if not calls:
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPool(workers, initializer=_begin, initargs=(threads, memory_mb), context=context)
    try:
        with _no_signal():  # Python ignores an exception of a signal that comes while a process forks
            numbers: dict[Future[Value], int] = {
                pool.schedule(_run, (call,)): number for number, call in enumerate(calls)
            }
        for future in as_completed(numbers):
            yield numbers[future], _explained(future)
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


@contextmanager
def _no_signal() -> Iterator[None]:
    """Let the signals that end a process wait until the block is over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(threads: int, memory_mb: int) -> None:
    """Prepare a new process: it ends with its parent, and cannot take more than its memory."""
    for number in _TO_WORKERS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    use_threads(threads)
    dask_threads: Any = sys.modules.get("dask.threaded")
    if dask_threads:  # the threads of the parent are not in a forked process
        dask_threads.default_pool = None
        dask_threads.pools.clear()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        status = Path("/proc/self/status").read_text("ascii")
        loaded_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
        limit = loaded_kib * 1024 + (memory_mb + _WORK_MB) * 10**6
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _run(call: Callable[[], Value]) -> Value:
    """Run a call; if the process is asked to stop, end it when the call has removed its temporary files."""
    for number in _TO_WORKERS:
        signal.signal(number, _stop_call)
    try:
        return call()
    except Stopped:
        os._exit(1)
    finally:
        for number in _TO_WORKERS:
            signal.signal(number, signal.SIG_DFL)


def _stop_call(number: int, _: object) -> None:
    raise Stopped(signal.Signals(number).name)


def _explained(future: Future[Value]) -> Future[Value]:
    """Return the future of a call, or one that says how its process was lost."""
    error = future.exception()
    if isinstance(error, ProcessExpired):
        code = error.exitcode
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        reason = f"its process ended {how}: the file crashed a library, or took all memory"
    elif isinstance(error, MemoryError):
        reason = f"more memory is needed than the job may use ({error or 'none is left'})"
    else:
        return future
    lost: Future[Value] = Future()
    lost.set_exception(ProcessLostError(f"{reason}; check the file, or give more memory (tiling.memory_mb)"))
    return lost
