"""A `python` that starts Snakemake and the stages in a tenth of a second, for tests that run the workflow many times.

A small job takes most of its time to load libraries. Here a server loads them once and forks itself for each job. A
script named `python` sends it the arguments, environment, current folder and open files of a job, waits, and ends with
the status of the job. The folder of the script is first on the PATH, so the rules call it too. The server only runs
`python -m snakemake` and `python -m pipeline` with the code of this folder; all else is left to the real Python.

No signal and no limit reaches such a job, and its memory is not that of a new process. Tests of these use the real
Python. So do the finished project and the tests of the whole chain, which would notice that a library is missing.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tests.support.paths import ROOT

_OF_RUNS = ("snakemake.cli", "snakemake.storage", "pipeline.project.console", "pipeline.project.jobs.run")
_LATE = ("models.unet", "matplotlib.backends.backend_svg")  # what stages import while they run
_SOCKET = "socket"
_SCRIPT = f"""\
#!{sys.executable} -IS
import json, os, socket, sys
python, words = {sys.executable!r}, sys.argv[1:]
paths = set(os.environ.get("PYTHONPATH", "").split(os.pathsep))
if words[:1] != ["-m"] or words[1] not in ("pipeline", "snakemake") or paths - {{"", {str(ROOT)!r}}}:
    os.execv(python, [python, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), {_SOCKET!r}))
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(10)))
"""


@contextmanager
def warm_python(folder: Path) -> Iterator[str]:
    """Start a server with its files in ``folder``; yield the path of the `python`; end the server."""
    script = folder / "python"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "tests.support.warm", str(folder / _SOCKET)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as server:  # its end closes standard input
        assert server.stdout.readline() == "ready\n"
        yield str(script)


def _load() -> None:
    """Import what Snakemake, the rules and the stages import."""
    main = import_module("pipeline.__main__")
    for name in (*_OF_RUNS, main.COMMANDS["check"], *main.STAGES.values(), *_LATE):
        import_module(name)
    import_module("snakemake.cli").get_argument_parser()  # imports its plugins
    del sys.modules["pipeline.__main__"]  # a job runs it


def _next_job(address: str) -> list[str]:
    """Fork a process for each job until standard input is closed; return in it, with the module and its arguments."""
    _load()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads would be missing in the jobs"
    gc.freeze()  # a collection in a job would copy all pages of memory
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that wait for jobs
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    return _start_job(connection)
    sys.exit()


def _start_job(connection: socket.socket) -> list[str]:
    """Fork the job and return in it; the process before the fork waits, and reports the status of the job."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    words, folder, environment = json.loads(b"".join(iter(lambda: connection.recv(2**16), b"")))
    if job := os.fork():
        _, status = os.waitpid(job, 0)
        code = os.waitstatus_to_exitcode(status)
        connection.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return words


def _run(module: str) -> NoReturn:
    """Run a module and end as Python does, except that nothing is freed: that would copy the memory of the server."""
    status: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        file.flush()
    os._exit(status)


if __name__ == "__main__":
    module, *words = _next_job(sys.argv[1])
    sys.argv[1:] = words
    _run(module)
