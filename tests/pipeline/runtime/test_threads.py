"""All libraries of a stage use the threads of its job, and no more: said once, before they are imported."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.__main__ import STAGES
from pipeline.runtime.threads import threads_in

# What each library says of itself; each is also asked when it was there before.
ASK = """
import json, sys
from pipeline.runtime.threads import use_threads
if "after" in sys.argv: import dask, numcodecs.blosc, numpy, scipy.linalg, tifffile, torch, zarr
use_threads(1)
import dask, numcodecs.blosc, numpy, scipy.linalg, skimage.measure, sklearn, tifffile, torch, zarr
from threadpoolctl import threadpool_info
found = {
    "torch": torch.get_num_threads(),
    "tifffile": tifffile.TIFF.MAXWORKERS,
    "dask": dask.config.get("num_workers"),
    "zarr": zarr.config.get("threading.max_workers"),
}
if "after" not in sys.argv: found |= {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
print(json.dumps(found))
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_every_library_has_the_threads_of_the_job(order):
    environment = os.environ | {"OMP_NUM_THREADS": "7", "TIFFFILE_NUM_THREADS": "7"}  # of a shell, not of the job
    done = subprocess.run(
        [sys.executable, "-c", ASK, order], capture_output=True, text=True, env=environment, check=True
    )
    found = json.loads(done.stdout)
    assert len(found) >= 4
    assert set(found.values()) == {1}, found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["predict", "--threads", "8"], 8),
        (["predict", "--threads=8", "--batch=a"], 8),
        (["tile", "--sample=--threads"], None),
        (["predict", "--threads", "many"], None),
        (["predict", "--threads"], None),
        (["predict", "--threads", "0"], None),
    ],
)
def test_threads_are_read_from_the_command_line(words, expected):
    assert threads_in(words) == expected


@pytest.mark.parametrize(("words", "expected"), [([], "1"), (["--threads", "2"], "2")])
def test_a_stage_without_the_flag_is_one_thread(words, expected):
    """Its rule has one. The variable is there before the stage is imported: here an importer that ends everything."""
    code = f"""
import os, sys
from pipeline import __main__ as command
def importer(name): sys.exit(os.environ["OMP_NUM_THREADS"])
command.import_module = importer
command.main({[next(iter(STAGES)), *words]!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith(expected)
