"""The written report: safe, complete, accessible and self-contained, whatever the data holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.unit.report_runs import verdict, write_run
from tlscale.errors import PlanError
from tlscale.report.markdown import plain
from tlscale.report.render import render

VOID = {"meta", "wbr", "br"}
WORDS = ("POSITIVE", "EQUIVALENT", "NEGATIVE", "INCONCLUSIVE", "NOT MEASURED")


class Page(HTMLParser):
    """Every element with its attributes, and the visible text; fails on tags that don't nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title", "desc"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "sample run")
    assert render(folder, verdict()) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_nothing_of_the_data_becomes_markup(run: Path, page: Page) -> None:
    names = {tag for tag, _ in page.elements}
    assert not names & {"script", "img", "iframe", "object", "embed", "link", "base", "form"}
    assert len(page.all("style")) == len(page.all("head")) == 1
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") > 30


def test_nothing_is_fetched(run: Path, page: Page) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    links = [a["href"] for _, a in page.elements if "href" in a] + [
        a["src"] for _, a in page.elements if "src" in a
    ]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)
    assert "url(" not in text
    assert "@import" not in text


def test_the_verdict_comes_first(page: Page) -> None:
    start = " ".join(page.text.split())
    assert (
        start.index("Verdict POSITIVE")
        < start.index("The tuned model beats")
        < start.index("Why this word")
    )
    assert "by 40.0\N{NO-BREAK SPACE}points of accuracy" in page.text
    assert "A smoke test: 1 seed of the 5" in page.text
    assert "Retention NEGATIVE" in start


def test_every_part_is_there(page: Page) -> None:
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert ids >= {
        "grounds", "scores", "retention", "changes", "training", "cost", "plan", "provenance", "use",
    }  # fmt: skip
    assert {a["href"] for a in page.all("a")} <= {f"#{name}" for name in ids}
    for said in (
        "question 2", "test.csv:4", "Repaired", "Broken", "did not run", "tlscale verify", "hf upload",
        "AutoModelForSequenceClassification.from_pretrained", "2 rows cut by 7 tokens", "Warning while",
    ):  # fmt: skip
        assert said in page.text, said


def test_landmarks_tables_and_figures_are_accessible(page: Page) -> None:
    assert [len(page.all(tag)) for tag in ("main", "header", "footer", "nav", "h1")] == [1, 1, 1, 1, 1]
    assert page.all("html")[0]["lang"] == "en"
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    named = [svg for svg in page.all("svg") if "role" in svg]
    assert len(named) >= 9
    for svg in named:
        assert svg["role"] == "img"
        assert set((svg["aria-labelledby"] or "").split()) <= set(ids)
    assert len(page.all("desc")) == len(page.all("title")) - 1 == len(named)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_has_its_sentence(tmp_path: Path, word: str) -> None:
    folder = write_run(tmp_path / "run")
    page = Page(render(folder, verdict(word, retention=word)).read_text(encoding="utf-8"))
    assert f"Verdict {word}" in page.text
    assert "{" not in re.sub(r"<code.*?</code>", "", page.text).split("Why this word")[0]


def test_language_models_get_likelihoods(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", task="causal-lm")
    page = Page(render(folder, verdict(metric="nll")).read_text(encoding="utf-8"))
    assert "11 of 12 items became likelier, 1 did not" in page.text
    assert "0.400\N{NO-BREAK SPACE}nats per token" in page.text
    assert "AutoModelForCausalLM" in page.text


def test_seeds_share_one_report(tmp_path: Path) -> None:
    for seed in (0, 2, 10):
        write_run(tmp_path / f"seed-{seed}", seed=seed)
    page = Page(render(tmp_path, verdict()).read_text(encoding="utf-8"))
    assert "0, 2, 10" in page.text
    assert "One line a seed, 3 in all" in page.text


def test_what_is_missing_is_said_not_feared(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "events.jsonl").unlink()
    (folder / "test.csv").unlink()
    page = Page(render(folder, verdict()).read_text(encoding="utf-8"))
    assert "did not finish" in page.text
    assert "not one file here" in page.text
    assert "texts could not be read again" in page.text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="not a run directory"):
        render(tmp_path, verdict())


def test_a_plan_that_was_changed_is_reported_with_a_broken_seal(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    content = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**content, "seed": 7}))
    assert "the plan's seal" in Page(render(folder, verdict()).read_text()).text


def test_markdown_says_the_same_and_escapes(run: Path) -> None:
    text = (run / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# POSITIVE: sample\n")
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<", outside)
    widths = {}
    for block in outside.split("\n\n"):
        rows = [row for row in block.splitlines() if row.startswith("|")]
        widths[block] = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert all(len(found) <= 1 for found in widths.values())
    assert "````yaml" in text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a|b", r"a\|b"),
        ("- x", r"\- x"),
        ("1. x", r"1\. x"),
        ("1.5 points", "1.5 points"),
        ("===", r"==\="),
        ("<b>&", r"\<b\>&amp;"),
        ("two\nlines", "two lines"),
    ],
)
def test_plain_text_stays_plain_in_markdown(given: str, shown: str) -> None:
    assert plain(given) == shown


def test_the_report_needs_neither_torch_nor_arrays() -> None:
    program = (
        "import sys, tlscale.report.render, tlscale.report.document\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'peft', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
