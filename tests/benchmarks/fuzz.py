"""Damage real files at random and read them, each in a process of its own with limited memory; print what came out.

Files are cut short, blocks are zeroed, bits of headers flipped. A damaged file must be refused in one line, or read:
no crash, no hang, no exception of a bug. Other pixels than those of the intact file are wrong; where neither a length
nor a checksum could tell, they are counted apart. ``python -m tests.benchmarks.fuzz [MUTATIONS]``
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
import zarr
from tifffile import COMPRESSION

from pipeline.base.errors import SlideError
from pipeline.project.drop.image_files import sample_id
from pipeline.settings.schema import ImageConfig
from pipeline.slides.slide import open_slide
from tests.benchmarks.common import say
from tests.support.paths import DATA

MUTATIONS, MEMORY_MB, LONGEST_S = 1000, 200, 60
LARGEST_BYTES = 6_000_000
KINDS = ("truncation", "zeroed block", "flipped bits")
HEADER_BYTES, LONGEST_BLOCK = 4096, 4096
SETS = ("isbi2012/images", "dsb2018/images", "axon_sem/images", "wbc/images", "phase_contrast/images", "wsi")
FORMATS = ("derived", "imagej", "lif", "nd2", "ome_tiff", "ome_zarr", "synthetic")
VIEW = ImageConfig(channels=[0], z=0, t=0)
CHECKED = {COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.ZSTD}
# What Python says of a reader that has lost its way, and bytes
ODD = re.compile(
    r"out of range|NoneType|object is not|unhashable|\bb['\"]|Traceback|not subscriptable|codec can't|0x\w{6}"
)


class Outcome(NamedTuple):
    """What became of a file: ``read``, ``refused``, or how it failed; the hash of its pixels, or the reason."""

    what: str
    text: str
    warnings: int = 0


class Damage(NamedTuple):
    """A change of a file: bytes from ``start`` to ``stop`` were changed, or all after ``start`` are gone."""

    kind: str
    start: int
    stop: int


def main(mutations: int) -> int:
    """Damage files; return 1 if one of them crashed, hung, or gave wrong pixels that could be told."""
    logging.disable()
    warnings.simplefilter("ignore")
    zarr.open_array(zarr.storage.MemoryStore(), shape=1, dtype="u1", mode="w")[:]  # its threads are there, then forked
    sources = find_sources()
    intact = {source: read(source) for source in sources}
    sources = [source for source in sources if intact[source].what == "read"]
    generator, counts, start = np.random.default_rng(0), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(mutations):
            source = sources[int(generator.integers(len(sources)))]
            path, damaged, damage = damage_copy(source, Path(folder), generator)
            outcome = read(path)
            result = judge(outcome, intact[source], can_tell(damaged, source, path, damage))
            counts[result] += 1
            if result in FAILURES:
                print(number, source.relative_to(DATA), damage, result, outcome.text, file=sys.stderr, flush=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    figures = {name.replace(" ", "_"): counts[name] for name in (*FINE, *FAILURES)}
    say("fuzz", mutations=mutations, files=len(sources), **figures, seconds=time.monotonic() - start)
    return int(any(counts[name] for name in FAILURES))


FINE = ("refused", "same pixels", "flagged", "wrong pixels that nothing could tell")
FAILURES = ("crash", "hang", "bug", "odd words", "wrong pixels")


def judge(outcome: Outcome, intact: Outcome, could_be_told: bool) -> str:
    """Return the name of an outcome, one of ``FINE`` and ``FAILURES``."""
    if outcome.what == "refused":
        return "odd words" if ODD.search(outcome.text) else "refused"
    if outcome.what == "read" and outcome.text != intact.text:
        if outcome.warnings > intact.warnings:
            return "flagged"
        return "wrong pixels" if could_be_told else "wrong pixels that nothing could tell"
    return "same pixels" if outcome.what == "read" else outcome.what


def find_sources() -> list[Path]:
    """Return the files to damage, a few of each set; an OME-Zarr is a folder."""
    sources: list[Path] = []
    for name in SETS:
        sources += sorted(path for path in (DATA / name).iterdir() if path.is_file())[:4]
    for name in FORMATS:
        root = DATA / "formats" / name
        files = (path for path in root.rglob("*.*") if path.is_file() and not {"multifile"}.intersection(path.parts))
        alone = (path for path in files if ".zarr" not in str(path) and path.stat().st_size < LARGEST_BYTES)
        images = (path.parent for path in root.rglob(".zattrs") if "multiscales" in path.read_text("utf-8"))
        sources += sorted(path for path in alone if sample_id(path.name))[:12] + sorted(images)[:3]
    return sources


def damage_copy(source: Path, folder: Path, generator: np.random.Generator) -> tuple[Path, Path, Damage]:
    """Copy a file or folder and damage it, or one file in it; return the copy, the damaged file, and the damage."""
    path = folder / source.name
    shutil.copytree(source, path, copy_function=shutil.copyfile) if source.is_dir() else shutil.copyfile(source, path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    damaged = files[int(generator.integers(len(files)))]
    content = bytearray(damaged.read_bytes())
    kind, size = KINDS[int(generator.integers(len(KINDS)))], len(content)
    start = int(generator.integers(max(1, size)))
    if kind == "truncation":
        damage = Damage(kind, start, size)
        del content[start:]
    elif kind == "zeroed block":
        damage = Damage(kind, start, min(size, start + int(generator.integers(1, LONGEST_BLOCK))))
        content[damage.start : damage.stop] = bytes(damage.stop - damage.start)
    else:  # directories of TIFF files are at either end
        start = int(generator.integers(min(size, HEADER_BYTES) or 1))
        start = start if generator.random() < 0.5 else max(0, size - 1 - start)
        damage = Damage(kind, start, min(size, start + 16))
        for _ in range(int(generator.integers(1, 9))):
            if size:
                content[min(size - 1, start + int(generator.integers(16)))] ^= 1 << int(generator.integers(8))
    damaged.write_bytes(content)
    return path, damaged, damage


def can_tell(damaged: Path, source: Path, path: Path, damage: Damage) -> bool:
    """Return whether a length or a checksum tells of the damage: the file is shorter, or compressed data changed."""
    if damage.kind == "truncation":
        return True
    original = source / damaged.relative_to(path) if source.is_dir() else source
    try:
        with tifffile.TiffFile(original) as tiff:
            pages = [page.aspage() for page in tiff.pages]
    except Exception:  # of another format
        return False
    return any(
        start <= damage.start and damage.stop <= start + length - 4  # the checksum itself may be passed over
        for page in pages[:1]
        if page.compression in CHECKED
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)
    )


def read(path: Path) -> Outcome:
    """Read a file in a process of its own."""
    here, there = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(here)
        os.write(there, json.dumps(_read(path)).encode())
        os._exit(0)
    os.close(there)
    with os.fdopen(here, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(process, 0)
    if answer:
        return Outcome(*json.loads(answer))
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Outcome("hang" if killed == signal.SIGALRM else "crash", f"signal {killed}, status {status}")


def _read(path: Path) -> Outcome:
    signal.alarm(LONGEST_S)  # ends the process
    taken = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    limit = taken + 8 * MEMORY_MB * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        with open_slide(path, memory_mb=MEMORY_MB, view=VIEW) as slide:
            pixels = slide.read_all()
            seen = hashlib.sha256(repr((pixels.shape, pixels.dtype.str)).encode() + pixels.tobytes())
            return Outcome("read", seen.hexdigest(), len(slide.inspect()))
    except SlideError as error:
        return Outcome("refused", str(error))
    except BaseException as error:  # a bug
        return Outcome("bug", f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else MUTATIONS))
