"""How many threads the libraries of a process use: this is the one place that tells them.

Left alone, each of them takes as many as the machine has cores, also where a job was given two. Most read a variable
when they are imported, so it is set before; those that are there already are told. Codecs of imagecodecs use one
thread a call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "TIFFFILE_NUM_THREADS",
    "BLOSC_NTHREADS",  # numcodecs; read at every call
    "DASK_NUM_WORKERS",
    "ZARR_THREADING__MAX_WORKERS",
)


def use_threads(count: int) -> None:
    """Let every library of this process, and of the processes it starts, use ``count`` threads.

    OpenBLAS can only be told before NumPy is imported.
    """
    os.environ.update(dict.fromkeys(_VARIABLES, str(count)))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
    if dask := sys.modules.get("dask"):
        dask.config.set(num_workers=count)
    if zarr := sys.modules.get("zarr"):
        zarr.config.set({"threading.max_workers": count})
    if tifffile := sys.modules.get("tifffile"):
        tifffile.TIFF.MAXWORKERS = count


def threads_in(words: Sequence[str]) -> int | None:
    """Return what ``--threads`` says on a command line; None where it does not, or says no number."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag == "--threads":
            number = value or following
            return int(number) if number.isdecimal() and int(number) else None
    return None
