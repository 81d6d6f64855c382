"""The page as a file: its size, what it refuses to run or load, narrow windows, dark and light, no JavaScript."""

import re

import pytest
from playwright.sync_api import expect

from pipeline.report.page.render import render
from pipeline.report.page_content import MOST_EMBEDDED
from tests.support.pages import DISTINCT, FAILED, LARGEST_BYTES, SAMPLES, embedded, entry, page
from tests.support.tab import luminance, widths


def test_500_samples_are_a_page_below_20_mb(opened, report):
    """How long it takes to open is in tests/benchmarks/report.py."""
    assert report.stat().st_size < LARGEST_BYTES
    expect(opened.locator(".counter")).to_have_text(f"{SAMPLES} of {SAMPLES}")


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
    tab.locator("#bars button").first.click()
    assert min(widths(tab.locator("#stack img"))) > 0
    assert widths(tab.locator(".thumbnail").first)[0] > 150
    assert [url for url in sent if not url.startswith("data:")] == [path.as_uri()]
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
