"""The review page of 500 samples in Chromium: fast, worst first, by mouse and keyboard, without a network."""

import re
import shutil
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from pipeline.report.page.page_types import Layers
from pipeline.report.page.render import render
from pipeline.report.page_content import MOST_EMBEDDED
from tests.support.pages import BREAKOUT, FORMULA, SCRIPT, embedded, entry, invented_pictures, page

SAMPLES, DISTINCT = 500, 25
FAILED = [SCRIPT, FORMULA, BREAKOUT]
LOADED_S, LARGEST_BYTES = 3.0, 20e6


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Pictures of several slides of 512 px, each with their shape."""
    folder, generator = tmp_path_factory.mktemp("slides"), np.random.default_rng(20150518)
    return [invented_pictures(folder, generator, side_px=512) for _ in range(DISTINCT)]


@pytest.fixture(scope="module")
def report(tmp_path_factory, drawn):
    """A page of 500 samples with its pictures beside it: 3 failed, every tenth flagged, Dice from 0.5 to 1."""
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
        entries.append(entry(f"plate/S{place:03}", layers=layers[place % DISTINCT], **cells))
    path = folder / "report.html"
    path.write_text(render(page(entries)), encoding="utf-8")
    return path


def linked(folder, name, pictures, shape):
    """Write pictures to files beside a page."""
    for layer, content in pictures.items():
        path = folder / f"{name}.{layer}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Layers(urls={layer: quote(f"{name}.{layer}") for layer in pictures}, shape=shape)


@pytest.fixture(scope="module")
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


def widths(pictures):
    """Return the widths of the pictures of elements, once they are loaded; 0 where one may not be."""
    script = "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth, () => 0)))"
    return pictures.evaluate_all(script)


def shown(tab, column="sample"):
    """Return the content of a column of all rows that pass the filters, from the top; few of them are drawn."""
    script = (
        "name => order.map(place => data.cells[place][columns.findIndex(header => header.textContent.trim() === name)])"
    )
    return tab.evaluate(script, column)


def rows(tab):
    """The rows that are drawn."""
    return tab.locator("#samples tbody tr[data-place]")


def focused(tab):
    return tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")


def stage_scroll(tab):
    return tab.locator("#stage").evaluate("stage => [stage.scrollLeft, stage.scrollTop]")


def test_500_samples_load_in_3_s_from_less_than_20_mb(opened, report):
    timing = opened.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000")
    print(f"{SAMPLES} samples: loaded in {timing:.2f} s, {report.stat().st_size / 1e6:.1f} MB")
    assert 0 < timing < LOADED_S
    assert report.stat().st_size < LARGEST_BYTES
    expect(opened.locator(".counter")).to_have_text(f"{SAMPLES} of {SAMPLES}")


def test_failed_samples_are_first_on_the_page_and_in_the_table(opened):
    failed = opened.locator("#failed")
    expect(failed).to_be_in_viewport()
    expect(failed.locator(".failure")).to_have_count(len(FAILED))
    assert failed.bounding_box()["y"] < opened.locator("#samples").bounding_box()["y"]
    names = shown(opened)
    assert sorted(names[:3]) == sorted(FAILED)
    assert names[3:6] == ["plate/S000", "plate/S010", "plate/S020"]
    assert names[53:55] == ["plate/S001", "plate/S002"]


def test_hostile_names_do_nothing(opened):
    for name in FAILED:
        button = opened.locator("button.open", has_text=re.compile(f"^{re.escape(name)}$"))
        button.click()
        expect(opened.locator("#viewer-title")).to_have_text(name)
        expect(opened.locator("#no-picture")).to_be_visible()
    assert opened.locator("img[src=x]").count() == 0


def test_an_inline_handler_or_a_request_is_refused(chromium, report):
    """The content security policy holds even if escaping fails."""
    tab = chromium.new_page()
    tab.goto(report.as_uri())
    tab.evaluate(
        """() => {
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = true'>");
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        }"""
    )
    assert tab.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"
    assert tab.evaluate("window.ran") is None
    tab.close()


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


@pytest.mark.parametrize("opened", [{"viewport": {"width": 1400, "height": 1000}}], indirect=True)
def test_scores_and_flags_are_in_sight_at_1400_px(opened):
    box = opened.locator("#samples .box").bounding_box()
    for name in ("state", "sample", "foreground dice", "dice nucleus", "flags"):
        header = opened.locator("#samples th", has=opened.locator(".sort", has_text=re.compile(f"^{name}$")))
        place = header.bounding_box()
        assert place["x"] + place["width"] <= box["x"] + box["width"], name


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


def test_a_page_to_mail_has_all_its_pictures_in_at_most_15_mb(chromium, drawn, tmp_path):
    layers = [embedded(*pictures) for pictures in drawn]
    entries = [entry(f"S{number:03}", layers=layers[number % DISTINCT]) for number in range(MOST_EMBEDDED)]
    path = tmp_path / "mailed.html"
    path.write_text(render(page(entries)), encoding="utf-8")
    assert path.stat().st_size < 15e6
    tab = chromium.new_page()
    sent = []
    tab.on("request", lambda request: sent.append(request.url))
    tab.goto(path.as_uri())
    assert min(widths(tab.locator("#stack img"))) > 0
    assert widths(tab.locator(".thumbnail").first)[0] > 150
    assert [url for url in sent if not url.startswith("data:")] == [path.as_uri()]
    tab.close()


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


@pytest.mark.parametrize("opened", [{"viewport": {"width": 400, "height": 800}}], indirect=True)
def test_a_narrow_window_needs_no_sideways_scrolling(opened):
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400
    opened.locator("#samples .all-columns").check()
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400
    opened.locator("button.open", has_text="plate/S010").click()
    expect(opened.locator("#viewer-title")).to_be_in_viewport()


@pytest.mark.parametrize("opened", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_text_can_be_read_in_dark_and_light(opened):
    """The contrast is at least 4.5 (WCAG 2.1, level AA)."""
    dark = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    paper = luminance(opened, "body", "backgroundColor")
    assert (paper < 0.2) is dark
    for text in (
        "body",
        ".note",
        "tr.failed .state",
        "tr.flagged .state",
        "tr.good .state",
        "button.open",
        "figcaption",
    ):
        if text.endswith(".state"):  # only rows in sight are drawn
            opened.locator("#state-filter").fill(text.split()[0].removeprefix("tr."))
        ink = luminance(opened, text, "color")
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, text


def luminance(tab, selector, name):
    """Return the relative luminance of a colour of an element."""
    colour = tab.locator(selector).first.evaluate("(element, name) => getComputedStyle(element)[name]", name)
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_without_javascript_failures_and_table_can_be_read(chromium, report):
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(report.as_uri())
    expect(tab.locator(".failure").first).to_be_visible()
    expect(tab.locator("#samples tbody tr").nth(4)).to_contain_text("plate/S010")
    expect(tab.locator("#samples tbody tr").nth(4)).to_be_visible()
    expect(tab.locator("#viewer")).to_be_hidden()
    expect(tab.locator("#samples .all-columns")).to_be_hidden()
    context.close()
