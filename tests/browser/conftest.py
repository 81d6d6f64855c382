"""The review page of 500 samples in Chromium, without a network."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from pipeline.project.jobs.todo import PICTURES
from pipeline.report.page.render import render
from tests.support.pages import DISTINCT, FAILED, SAMPLES, entry, invented_pictures, linked, page


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Pictures of several slides of 512 px, each with their shape and their histograms."""
    folder, generator = tmp_path_factory.mktemp("slides"), np.random.default_rng(20150518)
    return [invented_pictures(folder, generator, side_px=512) for _ in range(DISTINCT)]


@pytest.fixture(scope="session")
def report(tmp_path_factory, drawn):
    """A page of 500 samples with its pictures beside it: 3 failed, every tenth flagged, Dice from 0.5 to 1.

    The sample ``plate/S012`` has no pictures of a reference.
    """
    folder = tmp_path_factory.mktemp("report")
    layers = [linked(folder, f"pictures/unet/ü {number}", *pictures) for number, pictures in enumerate(drawn)]
    generator = np.random.default_rng(20150518)
    entries = [
        entry(name, status="failed", stage="tile", error=f"data/slides/{name}.tif: cut short") for name in FAILED
    ]
    for place in generator.permutation(SAMPLES - len(FAILED)):
        dice = 0.5 + place / 1000
        flags = "out of focus" if place % 10 == 0 else ""
        cells = {"flags": flags, "foreground_dice": dice, "dice_nucleus": None if place % 2 else dice}
        shown = layers[place % DISTINCT]
        if place == 12:
            urls = {name: url for name, url in shown.urls.items() if name in PICTURES["objects"]}
            shown = replace(shown, urls=urls)
        entries.append(entry(f"plate/S{place:03}", layers=shown, **cells))
    path = folder / "report.html"
    path.write_text(render(page(entries)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")  # the event loop of Playwright would be in the way of other tests
def chromium():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no Chromium on the PATH; install it (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, report, request):
    """The page in a window; any message on its console and any network request fail the test."""
    context = chromium.new_context(**{"viewport": {"width": 1400, "height": 1000}} | getattr(request, "param", {}))
    tab = context.new_page()
    problems = []
    tab.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    tab.on("request", lambda sent: None if sent.url.startswith(("file:", "data:")) else problems.append(sent.url))
    tab.goto(report.as_uri())
    yield tab
    context.close()
    assert not problems
