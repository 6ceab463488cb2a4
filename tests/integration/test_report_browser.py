"""The report in a real browser: every figure is drawn, nothing overflows, no errors, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.browser import Browser, chromium, program
from tests.unit.report_runs import verdict, write_run
from tlscale.report.render import render

pytestmark = pytest.mark.skipif(program() is None, reason="needs Chromium: install it to look at reports")

FIGURES = """[...document.querySelectorAll("svg[role=img]")].map(svg => ({
    name: svg.getAttribute("aria-labelledby"),
    size: [svg.getBoundingClientRect().width, svg.getBoundingClientRect().height],
    shapes: [...svg.querySelectorAll("rect, circle, polyline, line")].filter(
        s => s.getBoundingClientRect().width + s.getBoundingClientRect().height > 1).length,
    painted: [...svg.querySelectorAll("rect, circle, text")].every(
        s => getComputedStyle(s).fill !== "rgb(0, 0, 0)"),
    letters: [...svg.querySelectorAll("text")].map(t => {
        const box = t.getBoundingClientRect();
        return [t.textContent, box.left, box.top, box.right, box.bottom];
    }),
}))"""
COLOURS = """(selectors => selectors.map(selector => {
    const found = document.querySelector(selector);
    let behind = found;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    return [selector, getComputedStyle(found).color, getComputedStyle(behind).backgroundColor];
}))(%s)"""
TEXTS = [
    ".second .word", "h1 .word", "h1 .label", ".lead", ".caution", "figcaption", "nav a", "td",
    "thead th", "small", "dd.good", "dd.bad", ".examples dt", ".where", "summary", "pre", "footer",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(write_run(tmp_path_factory.mktemp("runs") / "sample"), verdict())


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1200])
def test_the_report_is_whole_at(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.show(page, width=width, scheme=scheme)
    drawn = browser.value(FIGURES)
    assert len(drawn) >= 9
    for figure in drawn:
        assert min(figure["size"]) > 20, figure["name"]
        assert figure["shapes"] >= 2, figure["name"]
        assert figure["painted"], f"{figure['name']} has a shape without a colour"
        outside = [text for text, left, _, right, _ in figure["letters"] if left < 0 or right > width]
        assert not outside, f"{figure['name']}: text beyond the page: {outside}"
    assert browser.value("document.scrollingElement.scrollWidth") <= width
    dark = luminance(browser.value("getComputedStyle(document.body).backgroundColor")) < 0.2
    assert dark == (scheme == "dark")
    faint = [row for row in browser.value(COLOURS % TEXTS) if contrast(row[1], row[2]) < 4.5]
    assert not faint
    assert len(browser.screenshot()) > 50_000
    assert not complaints(browser.heard)
    assert requested(browser.heard) == {page.as_uri()}


def complaints(heard: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    return [event for event in heard if event.get("method") in kinds]


def requested(heard: list[dict[str, Any]]) -> set[str]:
    sent = [event for event in heard if event.get("method") == "Network.requestWillBeSent"]
    return {event["params"]["request"]["url"] for event in sent}


def test_labels_on_a_scale_do_not_run_into_each_other(browser: Browser, page: Path) -> None:
    browser.show(page, width=380, scheme="light")
    for figure in browser.value(FIGURES):
        boxes = figure["letters"]
        for index, (text, left, top, right, bottom) in enumerate(boxes):
            for other, left2, top2, right2, bottom2 in boxes[index + 1 :]:
                apart = right <= left2 or right2 <= left or bottom <= top2 + 2 or bottom2 <= top + 2
                assert apart, f"{figure['name']}: {text!r} lies on {other!r}"


def test_on_paper_folded_tables_are_open(browser: Browser, page: Path) -> None:
    browser.show(page, width=794, scheme="dark", media="print")
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = browser.value(
        '[...document.querySelectorAll("details > :last-child")].map(e => e.checkVisibility())'
    )
    assert shown
    assert all(shown)
