"""Jobs never share a device; a killed job releases its device."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise

import pytest

JOB = """
import sys, time
from pipeline.runtime.device_lease import lease
device = "+".join(map(str, lease(["gpu-a", "gpu-b"], int(sys.argv[2]))))
print(device, time.monotonic(), flush=True)
time.sleep(float(sys.argv[1]))
print(device, time.monotonic(), flush=True)
"""


JOB_WITH_WORKER = """
import os, sys, time
from pipeline.runtime.device_lease import lease
device = lease(["gpu-a", "gpu-b"], 1)[0]
if os.fork() == 0:
    time.sleep(1000)
print(device, os.getpid(), flush=True)
time.sleep(1000)
"""


def start(tmp_path, seconds, count=1, code=JOB):
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": ""}
    command = [sys.executable, "-c", code, str(seconds), str(count)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.parametrize("counts", [[1] * 8, [2, 2, 1, 2, 1]])
def test_jobs_on_two_devices_never_share_one_and_do_not_wait_for_each_other(tmp_path, counts):
    jobs = [start(tmp_path, 0.25, count) for count in counts]
    spans = defaultdict(list)
    for job in jobs:
        (devices, begin), (_, end) = (line.split() for line in job.communicate(timeout=60)[0].splitlines())
        for device in devices.split("+"):
            spans[device].append((float(begin), float(end)))
    assert set(spans) == {"0", "1"}
    assert sum(map(len, spans.values())) == 8
    for used in spans.values():
        used.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(used))


def test_a_killed_job_frees_its_device(tmp_path):
    holders = [start(tmp_path, 1000) for _ in range(2)]
    held = {job.stdout.readline().split()[0]: job for job in holders}
    assert set(held) == {"0", "1"}
    waiting = start(tmp_path, 0)
    time.sleep(1.5)
    assert waiting.poll() is None
    held["1"].kill()
    assert waiting.communicate(timeout=60)[0].split()[0] == "1"
    held["0"].kill()
    for job in holders:
        job.wait()
        job.stdout.close()


def test_a_worker_that_outlives_its_killed_job_does_not_keep_the_device(tmp_path):
    """As those that make patches for a training do, for some seconds."""
    jobs = [start(tmp_path, 0, code=JOB_WITH_WORKER) for _ in range(2)]
    held = {job.stdout.readline().split()[0]: job for job in jobs}
    assert set(held) == {"0", "1"}
    held["1"].kill()
    held["1"].wait()
    os.killpg(held["1"].pid, 0)  # its worker is there still
    later = start(tmp_path, 0)
    assert later.communicate(timeout=60)[0].split()[0] == "1"
    for job in jobs:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        job.stdout.close()
