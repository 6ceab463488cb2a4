"""The card of a run full of hostile text, and how a browser shows it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.integration.browser import chromium, program
from tests.unit import report_runs
from tests.unit.report_runs import HOSTILE
from tlscale.publish import card, evidence, metadata, texts
from tlscale.publish.content import Base, latest
from tlscale.publish.licences import Link, settle
from tlscale.runs.layout import RunLayout

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CELLS = "[...document.querySelectorAll('table')].map(t => [...t.rows].map(r => r.cells.length))"
STYLE = """<style>:root{color-scheme:light dark} body{font:16px sans-serif;max-width:46rem}
td,th{border:1px solid;padding:4px} code{overflow-wrap:anywhere}</style>"""


def told(folder: Path) -> card.Told:
    """Everything of a run whose labels, reasons and names try to be markup."""
    layout = RunLayout(report_runs.write_run(folder))
    plan = report_runs.plan(folder)
    verdict = json.loads(report_runs.verdict().model_dump_json())
    data = (
        evidence.DataPart("train", f"rows {HOSTILE}.csv", None, None, "ab" * 32, 12, HOSTILE),
        evidence.DataPart("test", "org/set", "org/set", COMMIT, None, 12, "mit"),
    )
    return card.Told(
        repository="ada/hostile", plan=plan, kind="adapter", merged=False,
        base=Base("org/base", COMMIT), chain=settle([Link("base", HOSTILE, HOSTILE)], None), data=data,
        scores=tuple(latest(layout)), verdict=verdict, despite=HOSTILE, contamination=(HOSTILE,),
        shift=HOSTILE, gaps=evidence.gaps(layout) or evidence.Gaps(2, (HOSTILE, 0.1, 9), ("b", 0.9, 9)),
        verified={"tensors": 3, "moved": 3, "max_difference": 0.0}, versions={"tlscale": HOSTILE},
    )  # fmt: skip


def head(one: card.Told) -> dict[str, Any]:
    """The metadata of the card."""
    rows = [row for row in one.scores if row["arm"] == "tuned"]
    text = metadata.metadata(
        one.plan, kind="adapter", base=one.base, chain=one.chain, data=one.data, scores=rows
    )
    found: dict[str, Any] = yaml.safe_load(text.strip().strip("-"))
    return found


def test_metadata_say_what_is_known_and_no_more(tmp_path: Path) -> None:
    one = told(tmp_path)
    found = head(one)
    assert found["base_model"] == "org/base"
    assert found["license"] == "unknown"
    assert found["datasets"] == ["org/set"]
    assert "model-index" not in found, "the test rows are on the Hub, so the scores go where it reads them"
    (text,) = metadata.eval_results(
        one.plan, one.data, [r for r in one.scores if r["arm"] == "tuned"], 0.0
    ).values()
    (entry,) = yaml.safe_load(text)
    assert entry["dataset"] == {"id": "org/set", "task_id": "accuracy", "revision": COMMIT}
    assert entry["date"] == "1970-01-01"
    assert entry["value"] == 0.75


def test_the_command_to_do_it_again_holds_no_other(tmp_path: Path) -> None:
    """Files are named by whoever publishes, and the command is copied by whoever reads."""
    one = told(tmp_path)
    text = card.body(replace(one, data=(replace(one.data[0], name="rows; touch me.csv"),)))
    (command,) = (line for line in text.splitlines() if line.startswith("tlscale reproduce"))
    assert shlex.split(command)[3:] == ["data.train.path=YOUR/rows; touch me.csv"]


def test_the_card_says_how_it_was_trained(tmp_path: Path) -> None:
    text = card.body(told(tmp_path))
    for said in ("AdamW with betas 0.9 and 0.999", "weight decay", "warm-up", "Seed 0", "Strategy: `kind`"):
        assert said in text, said
    assert list(texts.card_problems(text)) == [], "our own cards pass the check of cards"


@pytest.mark.skipif(program() is None, reason="needs Chromium")
def test_a_browser_shows_tables_and_runs_nothing(tmp_path: Path) -> None:
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.body(told(tmp_path)))
    page = tmp_path / "card.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><title>card</title>{STYLE}<body>{body}")
    with chromium(tmp_path / "profile") as browser:
        for scheme in ("light", "dark"):
            browser.show(page, width=900, scheme=scheme)
            assert browser.value("document.querySelectorAll('table').length") == 3
            assert browser.value("document.querySelectorAll('script,img,iframe').length") == 0
            assert browser.value("document.querySelectorAll('h2').length") == 8
            # every row of a table has as many cells as its head: no text broke out of its cell
            assert all(len(set(counts)) == 1 for counts in browser.value(CELLS))
            assert "alert(1)" in browser.value("document.body.innerText"), "hostile text is shown as text"
            asked = [
                e["params"]["request"]["url"]
                for e in browser.heard
                if e["method"] == "Network.requestWillBeSent"
            ]
            assert [url for url in asked if not url.startswith("file:")] == []
            (tmp_path / f"card-{scheme}.png").write_bytes(browser.screenshot())
