"""The histograms of a sample in the viewer: selected bars mark their objects in its picture, by mouse and keyboard."""

import io
import re

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from playwright.sync_api import expect

from pipeline.base.palette import MARKED_RGB
from pipeline.report.histograms import histograms_of_sample
from pipeline.report.page.render import render
from pipeline.report.pictures import picture_shape
from tests.support.pages import columns_of, embedded, entry, linked, page, pictures_of
from tests.support.tab import focused

# Squares by row, column and side; the picture is half as large as the slide.
SIDE_PX, SQUARES = 512, [(40, 60, 20), (60, 300, 20), (300, 80, 40), (250, 400, 60), (420, 200, 60), (150, 150, 61)]


@pytest.fixture(params=[linked, embedded], ids=["beside", "in the page"])
def squares(request, chromium, tmp_path):
    """A page of one sample in a window; its objects are squares of 20 to 61 px."""
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for row, column, side in SQUARES:
        mask[row : row + side, column : column + side] = 1
    image = np.full_like(mask, 90)
    found, marks = histograms_of_sample(columns_of(mask, image), mask.shape)
    pictures = pictures_of(tmp_path, image, mask) | {"marks": marks}
    place = (tmp_path, "a") if request.param is linked else ()
    layers = request.param(*place, pictures, found | {"shape": picture_shape(mask.shape)})
    path = tmp_path / "report.html"
    path.write_text(render(page([entry("squares", layers=layers), entry("failed", status="failed")])), encoding="utf-8")
    tab = chromium.new_page(viewport={"width": 1400, "height": 1000})
    problems = []
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(path.as_uri())
    tab.locator("button.open", has_text="squares").click()
    yield tab
    tab.close()
    assert not problems


def marked(tab):
    """The squares of ``SQUARES``, by their numbers, that have a mark; every mark must be in the middle of one."""
    seen = np.array(Image.open(io.BytesIO(tab.locator("#stack").screenshot())).convert("RGB")).astype(int)
    dots, count = scipy.ndimage.label(np.abs(seen - MARKED_RGB).max(axis=2) < 12)
    middles = np.array(scipy.ndimage.center_of_mass(dots > 0, dots, range(1, count + 1))).reshape(-1, 2)
    middles *= SIDE_PX / len(seen)
    expected = np.array([(row + side / 2, column + side / 2) for row, column, side in SQUARES])
    distances = np.abs(middles[:, None] - expected).max(axis=2)
    assert (distances.min(axis=1) < 4).all()
    return set(distances.argmin(axis=1).tolist())


def test_selected_bars_mark_their_objects_and_none_marks_none(squares):
    assert marked(squares) == set()
    bars = squares.locator("#bars button")
    assert bars.count() == 15
    smallest, largest = bars.nth(0), bars.nth(14)
    expect(smallest).to_have_attribute("aria-label", re.compile(r"^up to \d+: 2 objects$"))
    smallest.click()
    assert marked(squares) == {0, 1}
    expect(squares.locator("#selected")).to_have_text("2 of 6 objects")
    largest.click()
    assert marked(squares) == {0, 1, 3, 4, 5}
    smallest.click()
    assert marked(squares) == {3, 4, 5}
    squares.locator("#larger").click()
    squares.locator("#whole").click()
    assert marked(squares) == {3, 4, 5}
    squares.locator("#select-none").click()
    assert marked(squares) == set()
    expect(largest).to_have_attribute("aria-pressed", "false")
    expect(squares.locator("#select-none")).to_be_disabled()


def test_another_measurement_has_its_own_bars_and_marks(squares):
    squares.locator("#bars button").first.click()
    squares.locator("#measurement").select_option("Channel 0: Mean")
    assert marked(squares) == set()
    counts = [int(bar.get_attribute("data-count")) for bar in squares.locator("#bars button").all()]
    assert counts == [6] + [0] * 14  # all are as bright
    squares.locator("#bars button").first.click()
    assert marked(squares) == set(range(6))


def test_bars_are_selected_by_keyboard_alone(squares):
    squares.locator("#measurement").focus()
    squares.keyboard.press("Tab")
    squares.keyboard.press("End")
    squares.keyboard.press("Space")
    assert marked(squares) == {3, 4, 5}
    outline = squares.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    squares.keyboard.press("ArrowRight")  # there is none to the right
    squares.keyboard.press("ArrowLeft")
    squares.keyboard.press("Enter")
    expect(squares.locator("#bars [aria-pressed=true]")).to_have_count(2)
    squares.keyboard.press("Escape")
    assert marked(squares) == set()
    squares.keyboard.press("Home")
    squares.keyboard.press("Space")
    assert marked(squares) == {0, 1}
    squares.keyboard.press("Shift+Tab")
    assert focused(squares) == "select-none"


def test_a_sample_without_picture_has_no_histogram_and_a_new_one_no_selection(squares):
    squares.locator("#bars button").first.click()
    squares.locator("button.open", has_text="failed").click()
    expect(squares.locator("#histogram")).to_be_hidden()
    expect(squares.locator("#marks")).to_be_hidden()
    squares.locator("button.open", has_text="squares").click()
    expect(squares.locator("#histogram")).to_be_visible()
    assert marked(squares) == set()
