"""Time and size of the report of many samples, and how fast its page is in Chromium.

The samples have the ledgers, pictures and tables of 300 objects that a run would have left, and scores that differ. The
report is made, then made again with one more sample.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from pipeline.base import paths
from pipeline.report.columns import columns
from tests.benchmarks.common import say, say_machine
from tests.benchmarks.planning import CONFIG, FOUND, SLIDES_OF_A_FOLDER, lay_out
from tests.support.networks import CLASSES
from tests.support.pages import invented_pictures
from tests.support.paths import ROOT

_OBJECTS = 300
# With the measurements that are on by default, of one channel
_TABLE = (
    "id,class,regions,area_px,area_um2,centroid_row_px,centroid_column_px,top_px,left_px,bottom_px,right_px,"
    "eccentricity,mean_intensity_0,perimeter_px,perimeter_um,circularity,solidity,extent,major_axis_px,major_axis_um,"
    "minor_axis_px,minor_axis_um,orientation_deg,max_feret_px,max_feret_um,min_feret_px,min_feret_um,holes,"
    "median_intensity_0,sd_intensity_0,min_intensity_0,max_intensity_0,integrated_intensity_0,edge_mean_intensity_0\n"
)
_ROW = (
    "{0},object,slide,{0},,117.31818181818181,200.54545454545453,110,190,125,212,0.6813851438692469,"
    "137.2556818181818,61.69036585838597,,0.9147004565099321,0.98675537109375,0.7867553710937,22.68628121326719,,"
    "17.395341338049532,,-10.961255722254034,23.33225707096784,,17.0,,0,135.0,17.533456256255374,88.0,183.0,42412.0,"
    "120.42272096251735\n"
)
_REGIONS = (
    "region,class,region_area_px,region_area_mm2,objects,objects_per_mm2,area_px,area_mm2,area_fraction,area_px_mean\n"
    "slide,background,65536,,,,30868,,0.471,\nslide,object,65536,,300,,34668,,0.529,115.56\n"
)
# Work in the page, then the next two frames on the screen
_TIMED = """
async (work) => {
    const start = performance.now();
    new Function(work)();
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return (performance.now() - start) / 1000;
}
"""
_SORT = "document.querySelectorAll('#samples .sort')[3].click()"
_FILTER = """
const field = document.querySelector('#samples thead input[aria-label="filter sample"]');
field.value = 'slide0012';
field.dispatchEvent(new Event('input', {bubbles: true}));
"""


def main() -> None:
    """Print the machine, then the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where to lay out the project, and leave it")
    known = parser.parse_args()
    say_machine()
    with tempfile.TemporaryDirectory() as scratch:
        project = (known.folder or Path(scratch)).resolve() / "project"
        if not project.exists():
            _lay_out(project, known.samples)
        bench(project, known.samples)


def bench(project: Path, samples: int) -> None:
    """Make the report, then again with one sample more; open its page."""
    page = project / paths.PAGE
    for new in (0, 1):
        if new:
            _add_sample(project)
        measured = _report(project)
        sizes = {"page_mb": page.stat().st_size / 1e6, "objects_mb": (project / paths.ALL_OBJECTS).stat().st_size / 1e6}
        say("report", samples=samples + new, new=new, **measured, **sizes)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1000}, bypass_csp=True)
        say("page in Chromium", samples=samples + 1, **_open(tab, page))
        browser.close()


def _open(tab: Page, page: Path) -> dict[str, float]:
    """Return seconds to open, sort, filter, and to see the pictures at the end of the table."""
    tab.goto(page.as_uri())
    opened_s = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
    found = {"opened_s": opened_s, "sorted_s": tab.evaluate(_TIMED, _SORT), "filtered_s": tab.evaluate(_TIMED, _FILTER)}
    tab.locator("#reset").click()
    start = time.perf_counter()
    tab.locator("#samples .box").evaluate("box => { box.scrollTop = box.scrollHeight }")
    tab.wait_for_function("[...document.querySelectorAll('.thumbnail')].at(-1).naturalWidth > 0")
    return found | {"scrolled_s": time.perf_counter() - start}


def _report(project: Path) -> dict[str, float]:
    """Return wall time and processor time of the job."""
    words = [sys.executable, "-m", "pipeline", "report", "--output", paths.REPORT, "--config", json.dumps(CONFIG)]
    before, start = os.times(), time.perf_counter()
    subprocess.run(
        words, cwd=project, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, stderr=subprocess.DEVNULL
    )
    wall_s, after = time.perf_counter() - start, os.times()
    used = [getattr(now, name) for now in (after, before) for name in ("children_user", "children_system")]
    return {"wall_s": wall_s, "cpu_s": used[0] + used[1] - used[2] - used[3]}


def _lay_out(project: Path, samples: int) -> None:
    contents = _contents(project.parent / "contents")
    generator = np.random.default_rng(20150518)
    numbers = [column for column in columns(CLASSES) if column.digits is not None]

    def measured(stage: str, sample: str) -> dict[str, Any]:
        if stage != "evaluate":
            return FOUND[stage]
        score = round(float(generator.beta(8, 2)), 9)
        metrics = {column.name: score if column.digits else 65_536 for column in numbers}
        return {"metrics": metrics, "warnings": ["cut off"] * sample.endswith("7")}

    lay_out(project, samples, SLIDES_OF_A_FOLDER, contents=contents, measured=measured)


def _contents(folder: Path) -> dict[str, Path]:
    """Return the files that all samples share, by pattern."""
    folder.mkdir(parents=True)
    pictures, _ = invented_pictures(folder, np.random.default_rng(0), side_px=256)
    files = {pattern: pictures[name] for name, pattern in paths.PICTURE.items()}
    files[paths.OBJECTS] = (_TABLE + "".join(map(_ROW.format, range(1, _OBJECTS + 1)))).encode()
    files[paths.REGIONS] = _REGIONS.encode()
    found = {}
    for number, (pattern, content) in enumerate(files.items()):
        found[pattern] = folder / f"{number}"
        found[pattern].write_bytes(content)
    return found


def _add_sample(project: Path) -> None:
    """Add a sample that failed, as if it were dropped."""
    slides = json.loads((project / paths.SLIDES).read_text("utf-8"))
    any_sample = next(iter(slides["samples"].values()))
    slides["samples"]["new"] = any_sample | {"slide": "data/slides/new.tif", "refused": "rename it"}
    (project / paths.SLIDES).write_text(json.dumps(slides), encoding="utf-8")


if __name__ == "__main__":
    main()
