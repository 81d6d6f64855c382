"""A SLURM of one node on this machine, for as long as a test needs it: munged, slurmctld and slurmd.

Jobs do not inherit SLURM_CONF, so the configuration has to lie in /etc/slurm; another one there is never touched.
Everything else (keys, sockets, state, logs) is in a folder of its own. There is no accounting and no confinement, and
the one GPU is /dev/null: the tests see what jobs ask for, not what they use.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

CONFIGURATION = Path("/etc/slurm/slurm.conf")
GPUS = CONFIGURATION.with_name("gres.conf")
MARK = "# Written by Slidemill's `make test-slurm`, which removes it when it ends.\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
CORES, MEMORY_MB = 4, 64_000  # as SLURM counts them, whatever the machine has
_PATIENCE_S = 60

_SLURM_CONF = """\
ClusterName=slidemill
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=3600
GresTypes=gpu
NodeName={name} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mb} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""


class ClusterError(Exception):
    """The cluster cannot be started, or something did not happen in time."""


class Cluster:
    """The running cluster; ``folder`` has its logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = socket.gethostname().split(".")[0]
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, *words: str) -> str:
        """Run a command of SLURM; return what it prints."""
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, name: str, *words: str) -> None:
        """Start a daemon in the foreground, as a child of this process."""
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen([name, *words], stdout=output, stderr=output, start_new_session=True)

    def stop(self, name: str) -> None:
        """End a daemon; kill it if it does not end."""
        daemon = self._daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def stop_all(self) -> None:
        """End all jobs, then the daemons in reverse order."""
        try:
            if "slurmd" in self._daemons:
                self._end_jobs()
        finally:
            for name in list(reversed(self._daemons)):
                self.stop(name)

    def _end_jobs(self) -> None:
        """Cancel all jobs, which would outlive the daemons."""
        if "slurmctld" not in self._daemons:
            self.start_controller()
        self.command("scancel", "--user=root")
        self.wait_for("end of all jobs", lambda: not _output_of("squeue", "--noheader"))

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self.start("slurmctld", "-D")
        self.wait_for("an answer of slurmctld", lambda: "UP" in _output_of("scontrol", "ping"))

    def wait_for(self, what: str, is_there: Callable[[], bool], *, within_s: float = _PATIENCE_S) -> None:
        """Wait until something is there; otherwise raise an error with the state of the cluster."""
        end = time.monotonic() + within_s
        while not is_there():
            if time.monotonic() > end:
                raise ClusterError(f"no {what} within {within_s:g} s\n{self.report()}")
            time.sleep(0.2)

    def is_idle(self) -> bool:
        """Whether the node is there and has nothing to do."""
        return _output_of("sinfo", "--noheader", "--format=%T").strip() == "idle"

    def report(self) -> str:
        """The state of the cluster: its queue, node and logs."""
        logs = sorted(self.folder.glob("*.log"))
        ends = [f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:]) for path in logs]
        return "\n".join([_output_of("squeue", "--states=all"), _output_of("scontrol", "show", "node"), *ends])


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster with its files in ``folder`` (no other user may write there); end it, whatever happens."""
    _check_machine()
    cluster = Cluster(folder)
    with ExitStack() as stack:
        for path, text in ((CONFIGURATION, _SLURM_CONF), (GPUS, "NodeName={name} Name=gpu File=/dev/null\n")):
            path.write_text(
                MARK + text.format(name=cluster.node, folder=folder, cores=CORES, memory_mb=MEMORY_MB), encoding="utf-8"
            )
            stack.callback(path.unlink)
        stack.callback(cluster.stop_all)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        _start_munge(cluster)
        cluster.start_controller()
        cluster.start("slurmd", "-D", "-N", cluster.node)
        cluster.wait_for("node", cluster.is_idle)
        yield cluster


def _check_machine() -> None:
    """Refuse a machine on which a cluster cannot be started, or where one is configured."""
    if os.geteuid() != 0:
        raise ClusterError("SLURM's daemons need root: run `make test-slurm` as root, best in a container")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise ClusterError(f"{', '.join(missing)} not found; `make test-slurm` installs them on Debian and Ubuntu")
    for path in (CONFIGURATION, GPUS):
        if path.exists() and not path.read_text(errors="replace").startswith(MARK):
            raise ClusterError(f"{path} belongs to a SLURM of this machine; it is left alone")
    if CONFIGURATION.exists() and "UP" in _output_of("scontrol", "ping"):
        raise ClusterError(f"{CONFIGURATION} is in use: another `make test-slurm` is running")


def _start_munge(cluster: Cluster) -> None:
    """Start the daemon that signs messages, with a key and a socket of its own."""
    folder = cluster.folder
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    options = [f"--key-file={key}", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"]
    options += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    cluster.start("munged", "--foreground", "--force", *options)
    cluster.wait_for("socket of munged", (folder / "munge.socket").exists)


def _output_of(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    return done.stdout + done.stderr
