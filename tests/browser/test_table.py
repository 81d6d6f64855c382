"""The table of samples: worst first, sorted and filtered by every column, drawn as it is scrolled."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from pipeline.report.columns import columns
from pipeline.report.page.page_types import Layers
from pipeline.report.page.render import render
from tests.support.pages import FAILED, FORMULA, LARGEST_BYTES, entry, page
from tests.support.tab import rows, shown, widths


def test_failed_samples_are_first_on_the_page_and_in_the_table(opened):
    failed = opened.locator("#failed")
    expect(failed).to_be_in_viewport()
    expect(failed.locator(".failure")).to_have_count(len(FAILED))
    assert failed.bounding_box()["y"] < opened.locator("#samples").bounding_box()["y"]
    names = shown(opened)
    assert sorted(names[:3]) == sorted(FAILED)
    assert names[3:6] == ["plate/S000", "plate/S010", "plate/S020"]
    assert names[53:55] == ["plate/S001", "plate/S002"]


def test_every_column_sorts_both_ways_with_empty_cells_last(opened):
    header = opened.locator("#samples th", has=opened.locator("button", has_text="dice nucleus"))
    for direction, order in (("ascending", 1), ("descending", -1)):
        header.locator("button").click()
        expect(header).to_have_attribute("aria-sort", direction)
        values = shown(opened, "dice nucleus")
        numbers = [value for value in values if value is not None]
        assert numbers == sorted(numbers)[::order]
        assert len(numbers) == 249
        assert not any(values[len(numbers) :])
        expect(rows(opened).first.locator("td.number").nth(1)).to_have_text(f"{numbers[0]:.3f}")
    opened.locator("#samples .sort", has_text="sample").click()
    assert shown(opened)[-1] == "plate/S496"
    expect(opened.locator("[aria-sort=ascending]")).to_have_count(1)
    opened.locator("#reset").click()
    assert shown(opened)[3] == "plate/S000"
    expect(opened.locator("[aria-sort=ascending]")).to_have_count(0)


@pytest.mark.parametrize(
    ("column", "text", "count"),
    [
        ("sample", "s04", 10),
        ("sample", "<SCRIPT>", 1),
        ("flags", "focus", 50),
        ("state", "failed", 3),
        ("foreground dice", "<0.51", 10),
        ("foreground dice", "<= 0.51", 11),
        ("foreground dice", ">=0.99", 7),
        ("foreground dice", "> .99", 6),
        ("foreground dice", "0.6..0.7", 101),
        ("foreground dice", "0.600", 1),
        ("foreground dice", "=0.6", 101),
        ("dice nucleus", ">0", 249),
        ("foreground dice", "<", 500),
    ],
)
def test_every_column_filters(opened, column, text, count):
    field = opened.get_by_label(f"filter {column}", exact=True)
    field.fill(text)
    expect(opened.locator(".counter")).to_have_text(f"{count} of 500")
    assert len(shown(opened)) == count
    expect(field).to_have_attribute("aria-invalid", str(text == "<").lower())


def test_filters_of_several_columns_hold_together(opened):
    opened.get_by_label("filter state", exact=True).fill("flagged")
    opened.get_by_label("filter foreground dice", exact=True).fill("<0.6")
    expect(opened.locator(".counter")).to_have_text("10 of 500")
    opened.locator("[data-state=good]").click()
    expect(opened.locator(".counter")).to_have_text("90 of 500")


@pytest.mark.parametrize("opened", [{"viewport": {"width": 1400, "height": 1000}}], indirect=True)
def test_scores_and_flags_are_in_sight_at_1400_px(opened):
    box = opened.locator("#samples .box").bounding_box()
    for name in ("state", "sample", "foreground dice", "dice nucleus", "flags"):
        header = opened.locator("#samples th", has=opened.locator(".sort", has_text=re.compile(f"^{name}$")))
        place = header.bounding_box()
        assert place["x"] + place["width"] <= box["x"] + box["width"], name


@pytest.mark.parametrize("classes", [["background", "nucleus"], ["background", "cytoplasm", "nucleus"]])
def test_the_columns_of_three_classes_fit_at_1400_px(chromium, tmp_path, classes):
    """With the files of each sample, the last column."""
    path = tmp_path / "classes.html"
    path.write_text(render(page([entry("plate1/A01_f3")], columns=columns(classes))), encoding="utf-8")
    tab = chromium.new_page(viewport={"width": 1400, "height": 1000})
    tab.goto(path.as_uri())
    shown_px, whole_px = tab.locator("#samples .box").evaluate("box => [box.clientWidth, box.scrollWidth]")
    assert whole_px <= shown_px
    tab.close()


def test_all_columns_appear_by_their_switch_and_filter_only_while_they_do(opened):
    header = opened.locator("#samples th", has=opened.locator("button", has_text="pixels"))
    expect(header).to_be_hidden()
    expect(rows(opened).nth(4).locator("td")).to_have_count(6)
    opened.locator("#samples .all-columns").check()
    expect(header).to_be_visible()
    pixels = rows(opened).nth(4).locator("td").nth(5)
    expect(pixels).to_have_text("4096")
    header.locator("button").click()
    expect(pixels).to_have_text("4096")
    opened.get_by_label("filter error", exact=True).fill("cut short")
    expect(opened.locator(".counter")).to_have_text("3 of 500")
    opened.locator("#samples .all-columns").uncheck()
    expect(header).to_be_hidden()
    expect(opened.locator(".counter")).to_have_text("500 of 500")


def test_rows_and_pictures_are_drawn_when_they_come_into_sight(opened):
    thumbnails = opened.locator(".thumbnail")
    expect(thumbnails.first).to_have_attribute("src", re.compile("^pictures/unet/"))
    assert rows(opened).count() < 40
    opened.locator("#samples .box").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    expect(rows(opened).last).to_contain_text("plate/S496")
    expect(rows(opened).last).to_have_attribute("aria-rowindex", "501")
    assert rows(opened).count() < 40
    assert widths(thumbnails.last)[0] > 150
    heights = rows(opened).evaluate_all("rows => [...new Set(rows.map(row => row.offsetHeight))]")
    assert len(heights) == 1  # else the place of a row could not be computed
    opened.locator("#samples .all-columns").check()
    assert opened.locator("#samples .box").evaluate("box => box.scrollHeight") < 502 * heights[0]


def test_a_link_to_a_failed_sample_opens_it_wherever_the_table_is(opened):
    opened.locator("#samples .box").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    opened.locator("#failed a", has_text=FORMULA).first.click()
    expect(opened.locator("#viewer-title")).to_have_text(FORMULA)
    expect(opened.locator("#samples tr[aria-current]")).to_be_in_viewport()


def test_10_000_samples_are_one_table_of_which_few_rows_are_drawn(chromium, tmp_path):
    """How long it takes is in tests/benchmarks/report.py."""
    generator = np.random.default_rng(0)
    entries = [
        entry(
            f"S{number:05}", foreground_dice=float(score), layers=Layers(urls={"image": f"{number}.webp"}, shape=(9, 9))
        )
        for number, score in enumerate(generator.permutation(10_000) / 10_000)
    ]
    path = tmp_path / "many.html"
    path.write_text(render(page(entries)), encoding="utf-8")
    assert path.stat().st_size < LARGEST_BYTES
    tab = chromium.new_page()
    tab.goto(path.as_uri())
    assert rows(tab).count() < 40
    for _ in range(2):
        tab.locator("#samples .sort", has_text="foreground dice").click()
    scores = shown(tab, "foreground dice")
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 10_000
    tab.get_by_label("filter sample", exact=True).fill("S0000")
    assert sorted(shown(tab)) == [f"S{number:05}" for number in range(10)]
    tab.close()
