"""The page shows names as text, the worst first, and can load nothing."""

import json
import math
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from pipeline.report.page.page_types import Column, Layers, Table
from pipeline.report.page.render import render
from tests.support.pages import BREAKOUT, COLUMNS, FIGURE, FORMULA, SCRIPT, entry, page

LAYERS = Layers(urls={"image": "data:image/webp;base64,aW1", "predicted": "data:p", "error": "</script>"}, shape=(3, 4))
LINKED = Layers(urls={"image": "pictures/unet/x.image.webp", "predicted": "pictures/y.png"}, shape=(3, 4))


class Parsed(HTMLParser):
    """The tags of a page with their attributes, the content of its scripts, and its visible text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts, self.texts, self.open = [], [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open = tag

    def handle_endtag(self, _):
        self.open = ""

    def handle_data(self, data):
        (self.scripts if self.open == "script" else self.texts).append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def data_of(html):
    """Return what the script of a page draws."""
    return json.loads(Parsed(html).scripts[0])


def rows_of(html):
    """Return the sample names of the table in their order; those without a script are the same."""
    names = [cells[1] for cells in data_of(html)["cells"]]
    assert re.findall(r'<tr id="s\d+".*?\n<td>([^<]*)<', html) == names
    return names


def test_the_worst_come_first():
    entries = [
        entry("good", foreground_dice=0.9),
        entry("waiting", status="waiting"),
        entry("unmeasured"),
        entry("bad", foreground_dice=0.2),
        entry("not a number", foreground_dice=math.nan),
        entry("blurred", foreground_dice=0.99, flags="out of focus"),
        entry("broken", status="failed", stage="tile", error="cut short"),
    ]
    expected = ["broken", "blurred", "bad", "good", "not a number", "unmeasured", "waiting"]
    for order in (entries, entries[::-1]):
        assert rows_of(render(page(order))) == expected


def test_sections_are_in_the_order_of_their_use():
    html = render(page([entry("x", status="failed", stage="tile", error="cut short")]))
    titles = ["Slidemill report: demo ", "Failed", "Samples", "No sample", "Models", "Figures", "Settings and versions"]
    assert re.findall(r"<h[12][^>]*>([^<]+)<", html) == titles


def test_states_are_counted():
    failed = [entry(f"f{place}", status="failed", stage="tile", error="x") for place in range(3)]
    text = " ".join(" ".join(Parsed(render(page([*failed, entry("a"), entry("b", flags="dark")]))).texts).split())
    assert "5 results" in text
    for count in ("3 failed", "1 flagged", "1 good"):
        assert count in text
    assert "waiting" not in text.split("Failed:")[0]


def test_samples_that_failed_for_one_reason_are_listed_together():
    entries = [entry(name, status="failed", stage="train", error="no images") for name in "abc"]
    entries.append(entry("d", status="failed", stage="tile", error="cut short"))
    html = render(page(entries))
    assert html.count('class="failure"') == 2
    assert html.count("no images</p>") == 1
    assert html.count(">log</a>") == 2 * len(entries)


@pytest.mark.parametrize("name", [SCRIPT, FORMULA, BREAKOUT, '" onmouseover="alert(3)', "{{ 7 * 7 }}", "a&amp;b"])
def test_names_and_errors_are_text(name):
    failed = entry(name, model=name, flags=name, status="failed", stage=name, error=name)
    table = Table(title=name, caption=name, columns=[Column(name=name, about=name)], rows=[{name: name}])
    figure = type(FIGURE)(title=name, caption=name, svg=name)
    content = page(
        [failed, entry("x")], classes=["b", name], tables=[table], figures=[figure], provenance={name: [name]}
    )
    hostile, harmless = Parsed(render(content)), Parsed(render(page([failed, entry("x")])))
    assert name in hostile.texts
    for parsed in (hostile, harmless):
        assert len(parsed.scripts) == 2
        assert not [key for _, attributes in parsed.tags for key in attributes if key.startswith("on")]
        assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in parsed.tags)


def test_links_are_those_of_the_entry():
    found = Parsed(render(page([entry("abc")]))).all("a")
    assert [link["href"] for link in found] == ["masks/3.ome.tiff", "../logs/3.log"]


def test_pictures_are_in_the_page_once_and_cannot_end_the_script():
    html = render(page([entry("x", layers=LAYERS), entry("y", status="failed", stage="tile", error="")]))
    data = data_of(html)
    nothing, shown = data["pictures"]
    assert nothing is None
    assert {name: shown["start"] + ending for name, ending in data["endings"][shown["ending"]].items()} == LAYERS.urls
    assert shown["shape"] == [3, 4]
    assert html.count(LAYERS.urls["image"]) == 1


def test_what_urls_of_many_samples_share_is_in_the_page_once():
    layers = [Layers(urls={"image": f"a/{n}.image", "error": f"a/{n}.error"}, shape=(3, 4)) for n in range(30)]
    data = data_of(render(page([entry(f"{n}", layers=own) for n, own in enumerate(layers)])))
    assert data["endings"] == [{"image": "image", "error": "error"}]
    assert {shown["start"] for shown in data["pictures"]} == {f"a/{n}." for n in range(30)}


def test_the_plane_that_pictures_show_is_said():
    layers = replace(LAYERS, plane="t 0, z 3 (of 8 planes)")
    (shown,) = data_of(render(page([entry("x", layers=layers)])))["pictures"]
    assert shown["plane"] == "t 0, z 3 (of 8 planes)"


def test_only_the_script_of_the_page_may_run():
    parsed = Parsed(render(page([entry("x", layers=LAYERS)])))
    policy = parsed.all("meta")[1]["content"]
    digest = b64encode(sha256(parsed.scripts[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; ")
    assert "img-src data:;" in policy
    assert "http" not in policy


def test_a_page_of_files_beside_it_may_load_those_images_and_nothing_else():
    policies = [
        Parsed(render(page([entry("x", layers=layers)]))).all("meta")[1]["content"] for layers in (LAYERS, LINKED)
    ]
    assert policies[1] == policies[0].replace("img-src data:;", "img-src data: 'self';")


def test_the_model_is_a_column_only_where_there_are_several():
    one, two = [entry("x")], [entry("x"), entry("x", model="fcn")]
    assert "filter model" not in render(page(one))
    assert "filter model" in render(page(two))


@pytest.mark.parametrize(
    ("value", "digits", "cell"),
    [
        (0.123456789, 3, '<td data-value="0.123456789">0.123</td>'),
        (12_345_678_901, 0, '<td data-value="12345678901">12345678901</td>'),
        (None, 3, "<td></td>"),
        (math.nan, 3, "<td></td>"),
        (math.inf, 3, "<td>inf</td>"),
        ("n/a", 3, "<td>n/a</td>"),
        ("7", None, "<td>7</td>"),
    ],
)
def test_numbers_are_rounded_for_the_eye_and_exact_for_sorting(value, digits, cell):
    table = Table(title="T", caption="", columns=[Column(name="v", digits=digits)], rows=[{"v": value}])
    assert cell in render(page([], tables=[table]))


def test_names_stand_before_numbers_before_texts_before_what_is_asked_for():
    html = render(page([entry("x", error=BREAKOUT, pixels=12, foreground_dice=0.123456)], tables=[]))
    assert re.findall(r'aria-label="filter ([^"]*)"', html) == [
        *("state", "sample", "foreground dice", "dice nucleus", "flags", "pixels", "error"),
    ]
    assert data_of(html)["cells"] == [["good", "x", 0.123, None, None, 12, BREAKOUT]]
    assert html.count('class="all-columns"') == 1
    assert 'class="text more"><button type="button" class="sort">error' in html
    leading = [column for column in COLUMNS if column.leading]
    assert 'class="all-columns"' not in render(page([entry("x")], columns=leading, tables=[]))


def test_very_many_samples_have_the_leading_columns_only():
    html = render(page([entry(f"{number}", error="x") for number in range(2001)], tables=[]))
    assert 'class="all-columns"' not in html
    assert {len(cells) for cells in data_of(html)["cells"]} == {5}
    assert "all columns in <code>metrics-all.csv</code>" in html
    assert "all columns in" not in render(page([entry("x")]))
    assert html.count('<tr id="s') == 100  # the script draws the others


def test_tables_below_have_all_their_cells():
    columns = [Column(name="a"), Column(name="b", leading=False)]
    table = Table(title="T", caption="", columns=columns, rows=[{"a": "x", "b": "y" * 41}])
    assert f'<td class="more long">{"y" * 41}</td>' in render(page([], tables=[table]))


def test_a_page_without_samples_says_so():
    assert "0 results" in render(page([], tables=[], figures=[], provenance={}))
