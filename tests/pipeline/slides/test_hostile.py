"""No file crashes, hangs, or takes more memory than its budget: it is read, or refused in one line."""

import csv
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

MEMORY_MB = 500
READABLE = {"ok", "ok-slow", "ok-without-metadata", "must-not-read-file", "no-hang"}
READABLE |= {"qc-flag", "zeros-or-flag", "ok-or-fail", "ok-or-config-error"}

READ_ALL = """
import json, logging, resource, signal, sys, warnings
from pathlib import Path
import imagecodecs, nd2, numpy, openslide, PIL.Image, tifffile, zarr
from pipeline.settings.schema import ImageConfig
from pipeline.base.errors import SlideError
from pipeline.slides.slide import open_slide
logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
zarr.open_array(zarr.storage.MemoryStore(), shape=1, dtype="u1", mode="w")[:]  # its threads, before the limit
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = taken + 4 * int(sys.argv[2]) * 10**6
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for line in sys.stdin:
    signal.alarm(30)  # ends the process
    outcome = {"path": line.strip()}
    view = ImageConfig(z=0) if any(part in line for part in ("cyclic_ifd_pair", "many_pages")) else None
    try:
        with open_slide(Path(sys.argv[1], outcome["path"]), memory_mb=int(sys.argv[2]), view=view) as slide:
            pixels = slide.read_all()
            outcome |= {"size": pixels.size, "channels": slide.channels, "pixel_size_um": slide.pixel_size_um}
            outcome |= {"levels": len(slide.levels), "zeros": not pixels.any()}
    except SlideError as error:
        outcome["error"] = str(error)
    print(json.dumps(outcome), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(data):
    """The outcome of every file of the index, read in one process of limited memory."""
    pytest.importorskip("nd2")
    with (data / "bad" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file) if row["kind"] != "pair"}
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, data / "bad", str(MEMORY_MB)],
        input="\n".join(rows),
        capture_output=True,
        text=True,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{list(rows)[len(found)]}: {done.returncode} {done.stderr[-2000:]}"
    return {outcome["path"]: outcome | {"expect": rows[outcome["path"]]["expect"]} for outcome in found}


def test_every_file_is_read_or_refused_in_one_line(outcomes):
    assert len(outcomes) > 170
    for path, outcome in outcomes.items():
        if "error" in outcome:
            assert path in outcome["error"], outcome
            assert "\n" not in outcome["error"], outcome
        else:
            assert outcome["size"] > 0, outcome


def test_every_file_ends_as_its_index_expects(outcomes):
    for outcome in outcomes.values():
        if outcome["expect"] in ("fail", "fail-or-plain-group"):
            assert "error" in outcome, outcome
        if outcome["expect"] in READABLE:
            assert "error" not in outcome, outcome
    assert sum("error" not in outcome for outcome in outcomes.values()) > 20


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("crafted/decompression_bomb_900MB.tif", "decodes to 900 MB, the limit is 500 MB"),
        ("crafted/nd2/truncated_50pct.nd2", "cannot be read"),
        ("crafted/zarr/no_multiscales.zarr", "no `multiscales` in its metadata"),
        ("crafted/ome/sizec_mismatch.ome.tif", "4 of the 5 planes that its OME-XML describes are missing"),
        ("crafted/zero_width.tif", "the image is empty"),
        ("crafted/lfs_pointer.tif", "no image: its first bytes are those of no known format"),
    ],
)
def test_the_error_names_the_reason(outcomes, path, message):
    assert message in outcomes[path]["error"]


@pytest.mark.parametrize("name", ["negative_pixel_size", "nan_pixel_size", "external_entity", "truncated_xml"])
def test_an_impossible_pixel_size_is_ignored(outcomes, name):
    assert outcomes[f"crafted/ome/{name}.ome.tif"]["pixel_size_um"] is None


def test_a_missing_level_is_ignored_and_a_missing_chunk_has_the_fill_value(outcomes):
    level, chunk = (outcomes[f"crafted/zarr/missing_{name}.zarr"] for name in ("level", "chunk"))
    assert (level["levels"], chunk["levels"]) == (2, 3)
    assert not chunk["zeros"]
