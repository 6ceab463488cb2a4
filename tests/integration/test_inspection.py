"""What a worker says of a recipe's examples, and how `tlscale check --examples` shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration import tiny
from tlscale.cli import doctor, main
from tlscale.planning.compile import compile_plan
from tlscale.recipe.load import check
from tlscale.runs.layout import RunLayout
from tlscale.worker.run import ACTIONS

TEMPLATE = "{% for m in messages %}: {{ m['content'] }} {% endfor %}"
Look = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "causal-lm": tiny.llama(root / "llama"),
        "sequence-classification": tiny.bert(root / "bert"),
        "sentence-embedding": root / "bert",
        "image-classification": tiny.vit(root / "vit"),
    }


def recipe(
    models: dict[str, Path], data: dict[str, Any], task: str = "causal-lm", **model: Any
) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "tiny",
        "model": {"model_name_or_path": str(models[task]), "task": task, **model},
        "data": {"test_split": 0, "max_length": 16, **data},
        "strategy": {"kind": "full"},
        "hardware": {"device": "cpu"},
    }


@pytest.fixture
def look(models: dict[str, Path], tmp_path: Path) -> Look:
    """Inspects rows in this process and gives what was written."""

    def inspect(
        rows: list[dict[str, Any]], columns: tuple[str, ...], task: str = "causal-lm", **more: Any
    ) -> dict[str, Any]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        train = {"path": str(path), **{name: name for name in columns}}
        model = more.pop("model", {})
        plan = compile_plan(
            check(recipe(models, {"train": train, **more}, task, **model), source="tiny"), offline=True
        )
        layout = RunLayout(tmp_path / "run")
        layout.root.mkdir()
        ACTIONS["inspect"](plan, layout, False, json.dumps({"examples": 2}))
        assert [p.name for p in layout.root.iterdir()] == [layout.inspection.name], (
            "nothing else is written"
        )
        found: dict[str, Any] = json.loads(layout.inspection.read_text())
        return found

    return inspect


def told(found: dict[str, Any]) -> dict[str, str]:
    return {f["check"]: f["message"] for f in found["findings"]}


PAIR = {"prompt": "the apple is red : what colour ?", "completion": " red"}
BOTH = ("prompt", "completion")


def test_trained_and_masked_runs_join_to_the_text_and_counts_are_right(look: Look) -> None:
    found = look([PAIR] * 4, BOTH)
    role = found["roles"][0]
    shown = role["shown"][0]
    assert len(role["shown"]) == 2
    assert shown["where"] == "rows.jsonl:1"
    assert [(s["trained"], s["tokens"]) for s in shown["segments"]] == [(False, 9), (True, 2)]
    assert (
        "".join(s["text"] for s in shown["segments"]).split()
        == "<s> the apple is red : what colour ? red </s>".split()
    )
    assert role["per_row"] == {"min": 2, "median": 2, "max": 2}
    assert (role["tokens"], role["supervised_tokens"], role["unknown_share"]) == (44, 8, 0)
    assert told(found) == {}


def test_truncation_lost_prompts_and_unlearned_ends_are_told_with_their_lines(look: Look) -> None:
    long = {"prompt": "the apple is red :", "completion": " red" * 30}
    found = look([PAIR, PAIR, long, PAIR], BOTH)
    said = told(found)
    assert set(said) == {"truncation", "prompt-lost", "eos"}
    assert all("rows.jsonl:3" in message and "1 of 4 rows" in message for message in said.values())
    assert "the longest 37: cut, 21 tokens lost" in said["truncation"]
    assert found["roles"][0]["cut_tokens"] == 21


def test_dropped_rows_are_told_as_dropped(look: Look) -> None:
    found = look([PAIR, {**PAIR, "completion": " red" * 30}], BOTH, overflow="drop")
    assert set(told(found)) == {"truncation"}
    assert "dropped: 1 of 2 rows (rows.jsonl:2)" in told(found)["truncation"]


def test_a_row_that_is_too_long_for_overflow_error_is_refused(look: Look) -> None:
    found = look([PAIR, {**PAIR, "completion": " red" * 30}], BOTH, overflow="error")
    assert [(f["severity"], f["where"]) for f in found["findings"]] == [("error", "rows.jsonl:2")]


def test_unknown_words_special_tokens_and_two_bos_are_told(look: Look) -> None:
    rows = [
        {"text": "<s> <s> the apple is red"},
        {"text": "the apple </s> is red the car is blue"},
        {"text": "zebra wombat is red"},
    ]
    found = look(rows, ("text",))
    said = told(found)
    assert set(said) == {"double-bos", "special-token", "unknown-tokens"}
    assert "rows.jsonl:1" in said["double-bos"]
    assert "rows.jsonl:2" in said["special-token"]
    assert "'zebra', 'wombat'" in said["unknown-tokens"]
    assert "rows.jsonl:3" in said["unknown-tokens"]


def test_mostly_unknown_tokens_are_an_error(look: Look) -> None:
    found = look([{"text": "zebra wombat koala emu"}] * 3, ("text",))
    assert [(f["severity"], f["check"]) for f in found["findings"]] == [("error", "unknown-tokens")]


def test_a_chat_template_without_ends_or_marks_is_told(look: Look, tmp_path: Path) -> None:
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    chat = [{"role": "user", "content": "what colour"}, {"role": "assistant", "content": "red"}]
    silent = [{"role": "user", "content": "what colour"}]
    rows = [{"messages": chat}] * 3 + [{"messages": silent}]
    found = look(rows, ("messages",), model={"chat_template": str(tmp_path / "template.jinja")})
    said = told(found)
    assert set(said) == {"unsupervised", "template-marks"}
    assert "rows.jsonl:4" in said["unsupervised"]


def test_no_chat_template_is_refused(look: Look) -> None:
    found = look([{"messages": [{"role": "assistant", "content": "red"}]}], ("messages",))
    assert "no chat template" in told(found)["unreadable"]
    assert found["roles"] == []


@pytest.mark.parametrize(
    ("task", "columns", "answer"),
    [
        ("sequence-classification", ("text", "label"), "red"),
        ("sentence-embedding", ("anchor", "positive"), "the apple is red"),
    ],
)
def test_other_tasks_show_the_answer(look: Look, task: str, columns: tuple[str, ...], answer: str) -> None:
    row = {
        "text": "the apple is red",
        "label": "red",
        "anchor": "a red apple",
        "positive": "the apple is red",
    }
    found = look([row, {**row, "label": "blue"}] * 3, columns, task)
    assert found["roles"][0]["shown"][0]["answer"] == answer
    assert not any(s["trained"] for s in found["roles"][0]["shown"][0]["segments"])


def test_images_are_decoded_and_their_labels_shown(models: dict[str, Path], tmp_path: Path) -> None:
    source = {"path": str(tiny.pictures(tmp_path / "p.npz")), "image": "images", "label": "labels"}
    plan = compile_plan(check(recipe(models, {"train": source}, "image-classification"), source="tiny"))
    layout = RunLayout(tmp_path / "run")
    ACTIONS["inspect"](plan, layout, False)
    role = json.loads(layout.inspection.read_text())["roles"][0]
    assert (role["examples"], role["per_row"], role["unknown_share"]) == (48, None, None)
    assert [shown["answer"] for shown in role["shown"]] == ["0", "1", "0"]


def test_colour_and_brackets_show_the_same_text_and_data_cannot_steer_the_terminal() -> None:
    segments = [{"text": "ask\n", "trained": False}, {"text": "\x1b[31mred\n", "trained": True}]
    role = {
        "role": "train", "rows": 2, "total_rows": 9, "examples": 2, "tokens": 8, "supervised_tokens": 4,
        "per_row": {"min": 2, "median": 2, "max": 2}, "cut_rows": 0, "cut_tokens": 0, "unknown_share": 0.0,
        "shown": [{"where": "rows.jsonl:1", "segments": segments, "answer": None}],
    }  # fmt: skip
    plain = doctor.rendered([role], colour=False)
    coloured = doctor.rendered([role], colour=True)
    assert "ask\n⟦\\x1b[31mred\n⟧" in plain
    assert "\x1b" not in plain
    assert "\x1b[31m" not in coloured
    assert "ask\n\\x1b[31mred\n" in re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert "2 of 9 rows" in plain


def test_check_with_examples_starts_a_worker_and_leaves_nothing(
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    tiny.sentences(tmp_path / "rows.jsonl", 40)
    source = {"path": "rows.jsonl", "prompt": "prompt", "completion": "completion"}
    Path("recipe.yaml").write_text(json.dumps(recipe(models, {"train": source, "test_split": 0.25})))
    before = sorted(tmp_path.iterdir())
    assert main(["check", "recipe.yaml", "--examples", "1", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["ok"]
    assert [role["role"] for role in said["examples"]] == ["test", "train"]
    assert {f["check"] for f in said["findings"]} == {"duplicate", "overlap"}
    assert sorted(tmp_path.iterdir()) == before
