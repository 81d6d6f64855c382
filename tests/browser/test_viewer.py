"""The viewer of one sample: layers, outlines, zoom; the whole page by keyboard alone."""

import re

import pytest
from playwright.sync_api import expect

from tests.support.tab import focused, shown, widths


def stage_scroll(tab):
    return tab.locator("#stage").evaluate("stage => [stage.scrollLeft, stage.scrollTop]")


def test_layers_switch_and_fade(opened):
    opened.locator("button.open", has_text="plate/S010").click()
    expect(opened.locator("#viewer-title")).to_have_text("plate/S010")
    pictures = {name: opened.locator(f"#{name}") for name in ("image", "predicted", "truth", "error")}
    expect(pictures["image"]).to_be_visible()
    assert widths(pictures["image"])[0] > 150
    for name in ("predicted", "truth", "error"):
        box = opened.locator(f"#show-{name}")
        for wanted in (True, False, True):
            box.set_checked(wanted)
            expect(pictures[name]).to_be_visible(visible=wanted)
        assert widths(pictures[name])[0] > 0
    expect(opened.locator("#errors")).to_contain_text("missed")
    opened.locator("#as-outlines").uncheck()
    opened.locator("#fade").fill("25")
    assert pictures["predicted"].evaluate("image => getComputedStyle(image).opacity") == "0.25"
    assert pictures["image"].evaluate("image => getComputedStyle(image).opacity") == "1"


def test_a_switch_shows_outlines_or_areas(opened):
    opened.locator("button.open", has_text="plate/S010").click()
    switch = opened.locator("#as-outlines")
    for checked, ending in ((True, "_outlines"), (False, "")):
        expect(switch).to_be_checked(checked=checked)
        for name in ("predicted", "truth"):
            expect(opened.locator(f"#{name}")).to_have_attribute("src", re.compile(rf"\.{name}{ending}$"))
        expect(opened.locator("#outlines")).to_be_visible(visible=checked)
        expect(opened.locator("#classes")).to_be_visible(visible=not checked)
        expect(opened.locator("#error")).to_have_attribute("src", re.compile(r"\.error$"))
        opened.keyboard.press("o")


def test_the_legend_names_what_the_picture_shows(opened):
    opened.locator("#show-error").check()
    for sample, has_reference in (("plate/S010", True), ("plate/S012", False), ("plate/S010", True)):
        opened.locator("#reset").click()
        opened.get_by_label("filter sample").first.fill(sample)
        opened.locator("button.open", has_text=sample).click()
        expect(opened.locator("#viewer-title")).to_have_text(sample)
        expect(opened.locator("#outlines")).to_contain_text("prediction")
        expect(opened.locator("#outlines span", has_text="reference")).to_be_visible(visible=has_reference)
        expect(opened.locator("#errors")).to_be_visible(visible=has_reference)


def test_zoom_keeps_the_point_under_the_pointer_and_dragging_moves(opened):
    opened.locator("button.open", has_text="plate/S010").click()
    stack, stage = opened.locator("#stack"), opened.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] * 0.4, stage["y"] + stage["height"] * 0.6

    def under_pointer():
        found = stack.bounding_box()
        return (x - found["x"]) / found["width"], (y - found["y"]) / found["height"]

    before = under_pointer()
    opened.mouse.move(x, y)
    opened.keyboard.down("Control")
    for _ in range(6):
        opened.mouse.wheel(0, -100)
    opened.keyboard.up("Control")
    expect(opened.locator("#zoom")).to_have_text("299 %")
    assert under_pointer() == pytest.approx(before, abs=0.02)
    left, top = stage_scroll(opened)
    opened.mouse.down()
    opened.mouse.move(x - 30, y - 20, steps=4)
    opened.mouse.up()
    assert stage_scroll(opened) == pytest.approx([left + 30, top + 20], abs=3)
    opened.locator("#whole").click()
    expect(opened.locator("#zoom")).to_have_text("100 %")


def test_it_works_by_keyboard_alone(opened):
    def tab_to(wanted, most=40):
        for _ in range(most):
            opened.keyboard.press("Tab")
            if focused(opened) == wanted:
                return
        pytest.fail(f"{wanted} cannot be reached")

    tab_to("foreground dice")
    outline = opened.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    opened.keyboard.press("Enter")
    assert shown(opened)[0] == "plate/S000"
    opened.keyboard.press("Tab")
    opened.keyboard.type("0.52..0.53")
    expect(opened.locator(".counter")).to_have_text("11 of 500")
    tab_to("plate/S020")
    opened.keyboard.press("Enter")
    title = opened.locator("#viewer-title")
    expect(title).to_have_text("plate/S020")
    opened.keyboard.press("ArrowDown")
    expect(title).to_have_text("plate/S021")
    assert focused(opened) == "plate/S021"
    for key, name in (("j", "22"), ("j", "23"), ("k", "22"), ("ArrowUp", "21")):
        opened.keyboard.press(key)
        expect(title).to_have_text(f"plate/S0{name}")
    expect(opened.locator("#position")).to_have_text("2 of 11")
    for key, name in (("p", "predicted"), ("t", "truth"), ("e", "error")):
        before = opened.locator(f"#show-{name}").is_checked()
        opened.keyboard.press(key)
        assert opened.locator(f"#show-{name}").is_checked() is not before
    opened.keyboard.press("+")
    expect(opened.locator("#zoom")).to_have_text("150 %")
    tab_to("stage", most=60)
    opened.keyboard.press("ArrowRight")
    opened.wait_for_function("document.getElementById('stage').scrollLeft > 0")
    opened.keyboard.press("0")
    expect(opened.locator("#zoom")).to_have_text("100 %")
