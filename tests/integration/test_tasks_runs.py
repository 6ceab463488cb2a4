"""Tasks on real processes: before and after training, on two processes, and where one of them fails."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import tiny
from tlscale.runs.record import read_lines

ROOT = Path(__file__).parents[2]
COLOURS = ["red", "green", "blue"]
TASK = """\
task: colours
kind: choice
test: {path: rows.jsonl}
train: {path: more.jsonl}
prompt: "the {thing} is"
choices: colours
answer: colour
"""
PASSAGES = """\
task: passages
kind: rolling
test: {path: passages.jsonl}
text: text
metrics: [word_perplexity]
"""
# fifty words, none of which is the same as the one before
PASSAGE = " ".join(
    f"{tiny.THINGS[at % 8]} {tiny.COLOURS[at // 3 % 4]}" if at % 5 else f"what {tiny.THINGS[at % 7]}"
    for at in range(25)
)


def tlscale(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlscale", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    tiny.llama(root / "llama")
    tiny.sentences(root / "train.jsonl", 32)
    for name, start in (("rows", 0), ("more", 1)):
        rows = [
            {"thing": thing, "colours": COLOURS, "colour": COLOURS[(at + start) % 3]}
            for at, thing in enumerate(tiny.THINGS)
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "colours.yaml").write_text(TASK)
    broken = TASK.replace("task: colours", "task: broken").replace("answer: colour", "answer: thing")
    (root / "broken.yaml").write_text(broken)
    words = PASSAGE.split()
    with (root / "train.jsonl").open("a") as file:
        for text in (PASSAGE, " ".join(words[30:])):
            file.write(json.dumps({"text": text}) + "\n")
    changed = [*words[30:40], "door", *words[41:]]
    passages = {
        "exact": words, "ngram": [*words[10:26], "what"], "minhash": changed, "": [*reversed(words[:20])]
    }  # fmt: skip
    rows = [{"text": " ".join(found), "how": how} for how, found in passages.items()]
    (root / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "passages.yaml").write_text(PASSAGES)
    return root


def _contaminated(run: Path) -> None:
    """Every item that stands in the training rows is found, and the clean one is scored apart."""
    rows = list(read_lines(run / "run" / "measurements.jsonl"))
    for arm in ("base", "tuned"):
        values = {r["metric"]: r["value"] for r in rows if (r["suite"], r["arm"]) == ("passages", arm)}
        items = list(read_lines(run / "run" / "outcomes" / f"{arm}-passages.jsonl"))
        found = [(item.get("tags") or {}).get("contaminated", "") for item in items]
        assert found == ["exact", "ngram", "minhash", ""]
        assert values["contaminated"] == 0.75
        clean = items[3]["nll"] / items[3]["values"]["words"]
        every = sum(item["nll"] for item in items) / sum(item["values"]["words"] for item in items)
        assert values["word_perplexity_clean"] == pytest.approx(math.exp(clean))
        assert values["word_perplexity"] == pytest.approx(math.exp(every)) != pytest.approx(math.exp(clean))


def _as_files(folder: Path) -> None:
    """The run's adapter, and what it is merged to, score as the run's own result did."""
    merged = tlscale(folder, "merge", "run")
    assert merged.returncode == 0, merged.stderr
    base, tuned = (scores(folder / "run", arm) for arm in ("base", "tuned"))
    assert base != pytest.approx(tuned, abs=0.01)
    for name, arm in (("adapter", "tuned"), ("merged", "base")):
        done = tlscale(folder, "eval", f"run/{name}", "--tasks", "colours.yaml", "--output", f"of-{name}")
        assert done.returncode == 0, done.stderr
        assert scores(folder / f"of-{name}", arm) == pytest.approx(tuned, abs=1e-4)


def scores(run: Path, arm: str) -> list[float]:
    """Every choice's log-likelihood."""
    return [one for row in read_lines(run / "outcomes" / f"{arm}-colours.jsonl") for one in row["scores"]]


def outcomes(path: Path) -> list[dict[str, object]]:
    return list(read_lines(path))


def test_two_processes_give_the_same_to_the_digit_and_a_broken_task_fails_alone(folder: Path) -> None:
    asked = ("--tasks", "colours.yaml,broken.yaml", "--shots", "0,2")
    one = tlscale(folder, "eval", "llama", *asked, "--output", "one")
    two = tlscale(folder, "eval", "llama", "hardware.processes=2", *asked, "--output", "two")
    for done in (one, two):
        assert done.returncode == 1
        assert "2 tasks failed; the others were scored:" in done.stderr
        assert "'apple' is no index, letter or one of the choices red, green, blue" in done.stderr
    for suite in ("colours", "colours-2shot"):
        alone, shared = (
            outcomes(folder / name / "outcomes" / f"base-{suite}.jsonl") for name in ("one", "two")
        )
        assert len(alone) == len(tiny.THINGS)
        assert alone == shared
    assert not list((folder / "one" / "outcomes").glob("*broken*"))


def test_a_recipes_tasks_run_before_and_after_and_enter_the_verdict(folder: Path) -> None:
    recipe = {
        "version": 1, "name": "tasks", "output_dir": "run", "hardware": {"device": "cpu"},
        "model": {"model_name_or_path": "llama", "task": "causal-lm"},
        "data": {"train": {"path": "train.jsonl", "text": "text"}},
        "strategy": {"kind": "peft", "method": "lora", "r": 4, "target_modules": "all-linear"},
        "train": {"max_steps": 4, "learning_rate": 1e-1},
        "evaluate": {"tasks": ["colours.yaml", "passages.yaml"], "contamination": True},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    done = tlscale(folder, "run", "recipe.yaml")
    assert done.returncode == 0, done.stderr
    rows = list(read_lines(folder / "run" / "measurements.jsonl"))
    arms = {(row["arm"], row["metric"]) for row in rows if row["suite"] == "colours"}
    wanted = ("acc", "acc_norm", "contaminated")
    assert {(arm, metric) for arm in ("base", "tuned") for metric in wanted} <= arms
    verdict = json.loads((folder / "run" / "verdict.json").read_text())
    claim = next(claim for claim in verdict["claims"] if claim["name"] == "colours")
    assert (claim["metric"], claim["against"], claim["n_items"]) == ("acc", "base", len(tiny.THINGS))
    assert "Evaluation tasks" in (folder / "run" / "report.html").read_text()
    _contaminated(folder)
    _as_files(folder)
    again = tlscale(folder, "eval", "llama", "--tasks", "colours.yaml", "--output", "alone")
    assert again.returncode == 0, again.stderr
    compared = tlscale(folder, "compare", "alone", "run")
    assert compared.returncode == 0, compared.stderr
    assert "colours: 8 items paired, 0 not" in compared.stdout
    unknown = tlscale(folder, "eval", "llama", "--tasks", "helaswag", "--output", "unknown")
    assert unknown.returncode == 1
    assert "did you mean hellaswag" in unknown.stderr
