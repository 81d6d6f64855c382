"""A pool gives every call its outcome, whatever the others do to their processes."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import dask
import pytest

from pipeline.base.errors import SlideError
from pipeline.runtime.pool import ProcessLostError, run_all


def square(number):
    return number * number, os.getpid()


def refuse(number):
    raise SlideError(f"{number}.tif: empty", stage="tile")


def crash(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def eat(_):
    return bytearray(10**12)


def in_threads(number):
    return sum(dask.compute(*[dask.delayed(square)(part)[0] for part in range(number)], scheduler="threads"))


def outcomes(calls, workers=2, memory_mb=1000):
    return dict(run_all(calls, workers=workers, threads=1, memory_mb=memory_mb))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_call_gets_its_result_from_another_process(workers):
    found = outcomes([partial(square, number) for number in range(20)], workers)
    assert {number: future.result()[0] for number, future in found.items()} == {n: n * n for n in range(20)}
    processes = {future.result()[1] for future in found.values()}
    assert os.getpid() not in processes
    assert len(processes) <= workers


def test_a_call_that_fails_crashes_or_takes_all_memory_costs_itself():
    bad = {3: refuse, 5: crash, 8: crash, 11: eat}
    found = outcomes([partial(bad.get(number, square), number) for number in range(16)])
    for number, future in found.items():
        if number not in bad:
            assert future.result()[0] == number * number
    with pytest.raises(SlideError, match=r"3\.tif: empty") as refused:
        found[3].result()
    assert refused.value.stage == "tile"
    for number in (5, 8):
        with pytest.raises(ProcessLostError, match="its process ended by SIGSEGV"):
            found[number].result()
    with pytest.raises(ProcessLostError, match="give more memory"):
        found[11].result()


def test_a_call_may_use_threads_after_its_parent_has_used_some():
    with dask.config.set(num_workers=2):  # as in the processes
        assert in_threads(4) == 14
    found = dict(run_all([partial(in_threads, 5)], workers=1, threads=2, memory_mb=1000))
    assert found[0].result() == 30


def test_the_limit_of_the_job_is_not_raised():
    program = """
        import resource
        from functools import partial
        from pipeline.runtime.pool import run_all
        resource.setrlimit(resource.RLIMIT_DATA, (2 * 10**9,) * 2)
        call = partial(resource.getrlimit, resource.RLIMIT_DATA)
        ((_, future),) = run_all([call], workers=1, threads=1, memory_mb=10_000)
        print(*future.result())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2000000000"] * 2


def test_no_process_outlives_the_one_that_made_it():
    program = """
        import os, time
        from functools import partial
        from pipeline.runtime.pool import ProcessLostError, run_all
        def wait(_):
            os.write(1, f"{os.getpid()}\\n".encode())  # at once, since the other process writes too
            time.sleep(600)
        list(run_all([partial(wait, n) for n in range(2)], workers=2, threads=1, memory_mb=1000))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    while any(is_alive(worker) for worker in workers):
        time.sleep(0.01)


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
