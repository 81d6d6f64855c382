"""The number of threads of every library in a process.

By default, each library uses all cores of the machine, even if a job has two. Most read a variable when they are
imported, so it is set before; those already imported are set directly. Codecs of imagecodecs use one thread per call.
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
    """Let every library of this process, and of processes that it starts, use ``count`` threads.

    For OpenBLAS this only works before NumPy is imported.
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
    """Return the value of ``--threads`` on a command line; None without a valid one."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        flag, _, value = word.partition("=")
        if flag == "--threads":
            number = value or following
            return int(number) if number.isdecimal() and int(number) else None
    return None
