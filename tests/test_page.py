"""The page and the notebook's fragment: as text, and as a browser shows them."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import Call, calls

import einstride.explanation
from einstride import explain
from einstride.explanation import Explanation
from einstride.explanation.page import fragment, page
from einstride.explanation.svg import COLOURS

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STYLE = (Path(einstride.explanation.__file__).parent / "style.css").read_text("utf-8")
WIDTHS = (400, 1280)
SCHEMES = ("light", "dark")


def cases() -> dict[str, Explanation]:
    long = ["position in the sequence", "averyveryverylonglabelthatneverends", "<script>alert('x')</script>"]
    square = np.ones((30, 30))
    chain = "ab,bc,cd,de,ef,fg,gh,hi,ij,ja->"
    deep = [list(range(10 * n, 10 * n + 10)) for n in range(3)]
    return {
        "matrix product": explain("ij,jk->ik", (300, 400), (400, 500)),
        "batched": explain("bcik,bcij->bckj", (2, 3, 4, 5), (2, 3, 4, 6)),
        "network": explain("pi,qj,ijkl,rk,sl->pqrs", *[(12, 10)] * 2, (10,) * 4, *[(12, 10)] * 2),
        "scalars": explain(",ij,->ji", (), (3, 4), ()),
        "one scalar": explain("->", ()),
        "trace": explain("ii->", (300, 300)),
        "view": explain("iij->ji", (3, 3, 4)),
        "broadcast": explain("...ij,...jk->...ik", (7, 1, 3, 4), (5, 4, 6)),
        "repeated output": explain("ij,j->iijj", (3, 4), (4,)),
        "nothing": explain("ij,jk->ik", (3, 0), (0, 4)),
        "ten operands": explain(chain, *[(4, 4)] * 10),
        "twenty labels": explain("abcde,efghi,ijklm,mnopq,qrst->abdfhkt", *[(2,) * 5] * 4, (2,) * 4),
        "thirty labels": explain(*[x for own in deep for x in (np.ones((1,) * 9 + (2,)), own)], [9, 19]),
        "large extents": explain("ij,jk->ik", (1_234_567, 89_012_345), (89_012_345, 7)),
        "long labels": explain(np.ones((2, 3)), long[:2], np.ones((3, 4)), long[1:], [long[0], long[2]]),
        "pairs as labels": explain(np.ones((2, 3)), [(0, 1), "a,b"], np.ones((3, 4)), ["a,b", "->"], [(0, 1), "->"]),
        "objects": explain("ij,jk->ik", np.ones((2, 2), object), np.ones((2, 2), object)),
        "measured": explain("ij,jk,kl->il", square, square, square).measure(square, square, square),
    }


CASES = cases()
by_case = pytest.mark.parametrize("name", CASES)


class Tags(HTMLParser):
    """Checks that what is opened is closed, and collects attributes."""

    EMPTY = ("meta", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@by_case
def test_markup_is_closed_and_refers_to_nothing_outside(name: str) -> None:
    text = page(CASES[name])
    names = {attribute for attribute, _ in Tags(text).attributes}
    assert not names & {"src", "href", "id"}, "a fragment may stand on a page several times, and stands alone"
    assert not re.search(r"https?:|@import|url\(", text)


@settings(max_examples=60)
@given(calls())
def test_any_call_has_a_page(call: Call) -> None:
    explanation = explain(*call.arguments(tuple(np.ones(shape) for shape in call.shapes)))
    text = page(explanation)
    Tags(text)
    for number in range(len(explanation.facts.labels)):
        # Its button and, in both pictures, a pill for each of its axes.
        pills = re.findall(rf'<g class="pill [^"]*" data-key="l{number}">', text)
        assert len(pills) == 2 * len(explanation.facts.labels[number].axes)
        assert len(re.findall(rf'<button [^>]* data-key="l{number}"', text)) == 1


def test_names_of_labels_are_text_and_not_markup() -> None:
    text = fragment(CASES["long labels"])
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in text


def test_a_page_is_saved(tmp_path: Path) -> None:
    explanation = CASES["batched"]
    explanation.save(tmp_path / "saved.html")
    assert (tmp_path / "saved.html").read_text("utf-8") == page(explanation)
    explanation.save(str(tmp_path / "again.html"))
    assert explanation._repr_html_() in (tmp_path / "again.html").read_text("utf-8")


def test_measured_times_stand_beside_the_predicted_ones() -> None:
    assert 'data-heading="measured"' in fragment(CASES["measured"])
    assert 'class="measured"' in fragment(CASES["measured"])
    assert 'data-heading="measured"' not in fragment(CASES["batched"])


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    dark, light = sorted(map(luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def palette(scheme: str) -> dict[str, str]:
    found = re.findall(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", STYLE)
    return {name: (light, dark)[SCHEMES.index(scheme)] for name, light, dark in found}


def test_contrast_is_computed_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_colour_of_text_has_the_contrast_of_level_aa(scheme: str) -> None:
    colours = palette(scheme)
    texts = [f"c{number}" for number in range(COLOURS)] + ["ink", "muted", "accent"]
    for text, ground in itertools.product(texts, ("paper", "panel")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_differ_in_colour(scheme: str) -> None:
    colours = [palette(scheme)[f"c{number}"] for number in range(COLOURS)]
    for first, second in itertools.combinations(colours, 2):
        assert sum((int(first[at : at + 2], 16) - int(second[at : at + 2], 16)) ** 2 for at in (1, 3, 5)) > 40**2


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=BROWSER)
        yield started
        started.close()


class Opened:
    """A page in the browser, and what went wrong on it."""

    def __init__(self, browser: Any, text: str, path: Path, width: int = 1280, scheme: str = "light") -> None:
        path.write_text(text, encoding="utf-8")
        self.tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.wrong: list[str] = []
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("request", lambda request: self.wrong.extend([request.url] * (request.url != path.as_uri())))
        self.tab.goto(path.as_uri())

    def lit(self) -> set[str]:
        """The keys of all elements that are lit; every element of a lit key must be."""
        found: list[list[Any]] = self.tab.evaluate(
            "[...document.querySelectorAll('[data-key]')].map(e => [e.dataset.key, e.classList.contains('lit')])"
        )
        lit = {key for key, on in found if on}
        assert all(on for key, on in found if key in lit)
        return lit


# Texts that are shown, with the box of each and of the nearest thing that is drawn around it.
LAYOUT = """() => {
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("style, script, title")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const svg = parent.closest("svg");
    const frame = svg
      ? (parent.closest(".pill, .box")?.querySelector("rect") ?? svg)
      : parent.closest("button, .node, td, th, dd, dt, li, p, pre, h2, h3, figcaption");
    const around = frame.getBoundingClientRect();
    for (const box of svg ? [parent.getBoundingClientRect()] : range.getClientRects()) {
      if (box.width < 0.5) continue;
      texts.push({
        text: node.data, pre: Boolean(parent.closest("pre")), box: [box.left, box.top, box.right, box.bottom],
        around: [around.left, around.top, around.right, around.bottom],
      });
    }
  }
  return { texts, wide: document.documentElement.scrollWidth };
}"""


def faults(layout: dict[str, Any], width: int) -> list[str]:
    """Texts over texts, texts that leave their boxes, and a page that is too wide."""
    found = [f"the page is {layout['wide']} wide"] if layout["wide"] > width else []
    boxes = [(text["text"], text["box"]) for text in layout["texts"] if not text["pre"]]
    for text in layout["texts"]:
        left, top, right, bottom = text["box"]
        inside = text["around"]
        sides = [] if text["pre"] else [inside[0] - left, right - inside[2], right - width]
        if max([*sides, inside[1] - top, bottom - inside[3]]) > 1:
            found.append(f"{text['text']!r} at {text['box']} leaves {inside}")
    for (first, a), (second, b) in itertools.combinations(boxes, 2):
        if min(a[2], b[2]) - max(a[0], b[0]) > 1.5 and min(a[3], b[3]) - max(a[1], b[1]) > 2.5:
            found.append(f"{first!r} at {a} and {second!r} at {b} overlap")
    return found


@by_case
def test_nothing_overlaps_or_overflows(browser: Any, tmp_path: Path, name: str) -> None:
    opened = Opened(browser, page(CASES[name]), tmp_path / "page.html")
    for width, scheme in itertools.product(WIDTHS, SCHEMES):
        opened.tab.set_viewport_size({"width": width, "height": 900})
        opened.tab.emulate_media(color_scheme=scheme)
        layout = opened.tab.evaluate(LAYOUT)
        assert len(layout["texts"]) > 20
        assert faults(layout, width) == []
    opened.tab.close()
    assert opened.wrong == []


def test_a_layout_that_is_wrong_is_seen(browser: Any, tmp_path: Path) -> None:
    text = """<body style="margin: 0"><p>one</p><p style="margin-top: -2em">two</p>
    <p style="width: 3em; white-space: nowrap">much too long</p><p style="width: 500px">wide</p>"""
    opened = Opened(browser, text, tmp_path / "page.html", 400)
    found = faults(opened.tab.evaluate(LAYOUT), 400)
    opened.tab.close()
    assert [re.findall(r"wide$|leaves|overlap$", fault)[0] for fault in found] == ["wide", "leaves", "overlap"]


@pytest.mark.parametrize("name", ["batched", "broadcast", "long labels"])
def test_pointing_at_a_label_lights_it_up_everywhere(browser: Any, tmp_path: Path, name: str) -> None:
    explanation = CASES[name]
    opened = Opened(browser, page(explanation), tmp_path / "page.html")
    keys = opened.tab.evaluate("[...document.querySelectorAll('[data-key]')].map(e => e.dataset.key)")
    for number in range(len(explanation.facts.labels)):
        wanted = {key for key in keys if f"l{number}" in key.split()}
        opened.tab.hover(f'button[data-key="l{number}"]')
        assert opened.lit() == wanted
        for place in (f'.roomy .pill[data-key="l{number}"] rect', f'pre [data-key="l{number}"]'):
            opened.tab.mouse.move(0, 0)
            assert opened.lit() == set()
            opened.tab.locator(place).first.hover(force=True)
            assert opened.lit() == wanted
    opened.tab.close()
    assert opened.wrong == []


def test_a_lit_label_looks_it(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, page(CASES["batched"]), tmp_path / "page.html")
    style = """selector => {
      const style = getComputedStyle(document.querySelector(selector));
      return [style.backgroundColor, style.strokeWidth];
    }"""
    places = ['h2 [data-key="l2"]', '.roomy [data-key="l2"] .wire', 'button[data-key="l2"]']
    before = [opened.tab.evaluate(style, place) for place in places]
    opened.tab.hover('pre [data-key="l2"]')
    after = [opened.tab.evaluate(style, place) for place in places]
    other = opened.tab.evaluate(style, 'h2 [data-key="l1"]')
    opened.tab.close()
    assert all(was != now for was, now in zip(before, after, strict=True))
    assert other == before[0]


def test_the_keyboard_reaches_every_label(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, page(CASES["batched"]), tmp_path / "page.html")
    focus = """() => {
      const element = document.activeElement;
      return [element.tagName, element.dataset.key, getComputedStyle(element).outlineStyle];
    }"""
    for number in range(5):
        opened.tab.keyboard.press("Tab")
        assert opened.tab.evaluate(focus) == ["BUTTON", f"l{number}", "solid"]
        assert opened.lit() == {f"l{number}"}
    for _ in range(3):  # the code, which may be too wide and scrolls
        opened.tab.keyboard.press("Tab")
        assert opened.tab.evaluate(focus)[0::2] == ["PRE", "solid"]
    assert opened.lit() == set()
    opened.tab.close()
    assert opened.wrong == []


def test_a_click_keeps_a_label_lit_until_the_next(browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, page(CASES["batched"]), tmp_path / "page.html")
    opened.tab.click('button[data-key="l1"]')
    opened.tab.mouse.move(0, 0)
    assert opened.lit() == {"l1"}
    assert opened.tab.get_attribute('button[data-key="l1"]', "aria-pressed") == "true"
    opened.tab.hover('button[data-key="l3"]')
    assert opened.lit() == {"l3"}
    opened.tab.mouse.move(0, 0)
    assert opened.lit() == {"l1"}
    opened.tab.keyboard.press("Escape")
    assert opened.lit() == set()
    assert opened.tab.get_attribute('button[data-key="l1"]', "aria-pressed") == "false"
    opened.tab.focus('button[data-key="l2"]')
    opened.tab.keyboard.press("Enter")
    opened.tab.focus("pre")
    assert opened.lit() == {"l2"}
    opened.tab.close()


def test_explanations_in_one_notebook_do_not_meet(browser: Any, tmp_path: Path) -> None:
    both = f"<!doctype html><body>{fragment(CASES['batched'])}{fragment(CASES['matrix product'])}"
    opened = Opened(browser, both, tmp_path / "page.html")
    count = "at => document.querySelectorAll('.einstride')[at].querySelectorAll('.lit').length"
    opened.tab.locator('.einstride >> nth=1 >> button[data-key="l0"]').hover()
    assert opened.tab.evaluate(count, 0) == 0
    assert opened.tab.evaluate(count, 1) > 3
    opened.tab.locator('.einstride >> nth=0 >> button[data-key="l0"]').hover()
    assert opened.tab.evaluate(count, 0) > 3
    assert opened.tab.evaluate(count, 1) == 0
    opened.tab.close()
    assert opened.wrong == []


@pytest.mark.parametrize("theme", ["true", "false"])
def test_a_notebooks_theme_wins_over_the_systems(browser: Any, tmp_path: Path, theme: str) -> None:
    text = f'<!doctype html><body data-jp-theme-light="{theme}">{fragment(CASES["batched"])}'
    ground = "getComputedStyle(document.querySelector('.einstride')).backgroundColor"
    for scheme in SCHEMES:
        opened = Opened(browser, text, tmp_path / "page.html", scheme=scheme)
        paper = palette("light" if theme == "true" else "dark")["paper"]
        shown = opened.tab.evaluate(ground)
        opened.tab.close()
        assert shown == "rgb({}, {}, {})".format(*(int(paper[at : at + 2], 16) for at in (1, 3, 5)))
