"""`tlscale sweep` on real runs: killed and gone on with, shared by two, never near the test rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import tiny
from tests.integration.outside import colours
from tests.integration.warm import Warm
from tlscale.recipe.load import read
from tlscale.report.sweeps import SweepResult
from tlscale.runs.record import read_lines

ROOT = Path(__file__).parents[2]
RATES = (1e-4, 1e-2, 0.1)
RECIPE = """\
version: 1
name: colours
model: {model_name_or_path: ./bert, task: sequence-classification}
data:
  train: {path: rows.jsonl, text: text, label: label}
  validation: {path: validation.jsonl, text: text, label: label}
  test: {path: test.jsonl, text: text, label: label}
  max_length: 32
strategy: {kind: features}
train: {learning_rate: 1e-2, num_train_epochs: 20, train_batch_size: 16, eval_steps: 20}
evaluate: {target: [accuracy, nll]}
hardware: {device: cpu}
sweep:
  sampler: grid
  metric: nll
  parameters: {train.learning_rate: {choices: [1e-4, 1e-2, 0.1]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours(tmp_path_factory.mktemp("sweep"), RECIPE, rows=64, validation=32, test=32)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with Warm(tmp_path_factory.mktemp("warm")) as program:
        yield program


def started(folder: Path, python: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, in a process whose workers come from the warm one."""
    code = (
        f"import sys; sys.executable = {str(python)!r}; from tlscale.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def result(folder: Path, name: str = "colours") -> SweepResult:
    text = (folder / f"runs/{name}-sweep/sweep.json").read_text(encoding="utf-8")
    return SweepResult.model_validate_json(text)


def test_killed_and_gone_on_with_it_is_the_sweep_it_would_have_been(folder: Path, python: Path) -> None:
    process = started(folder, python, "sweep", "r.yaml")
    log = folder / "runs/colours-sweep/trials.jsonl"
    while not any(row["number"] == 1 for row in read_lines(log)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "runs/colours-sweep/sweep.json").exists()
    said, wrong = started(folder, python, "sweep", "r.yaml").communicate()
    (search,) = result(folder).searches
    assert [t.parameters["train.learning_rate"] for t in search.trials] == list(RATES), wrong
    assert [t.state for t in search.trials] == ["complete"] * 3
    assert "trial     tuned   0" not in said, "a finished trial is not run again"
    values = [t.value for t in search.trials if t.value is not None]
    assert values[2] < values[1] < values[0], "a linear head on little data wants a high rate"
    assert search.best == 2
    assert "complete, best" in said
    best = folder / "runs/colours-sweep/best.yaml"
    assert read(best)["train"]["learning_rate"] == 0.1
    assert read(best)["evaluate"]["trials"] == {"tuned": 3}
    assert (folder / "runs/colours-sweep/report.html").is_file()
    for trial in search.trials:
        run = folder / "runs/colours-sweep" / trial.folder
        roles = {row["role"] for row in read_lines(run / "events.jsonl") if row["event"] == "data"}
        assert roles == {"train", "validation"}, "the test rows are not even read"
        assert len(trial.losses) == 4


def test_two_processes_share_one_sweep(folder: Path, python: Path) -> None:
    both = [
        started(folder, python, "sweep", "r.yaml", "output_dir=runs/shared", "--json") for _ in range(2)
    ]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    (search,) = result(folder, "shared").searches
    assert [t.state for t in search.trials] == ["complete"] * 3
    rows = list(read_lines(folder / "runs/shared-sweep/trials.jsonl"))
    assert sorted(row["number"] for row in rows if row["state"] == "complete") == [0, 1, 2]
    assert json.loads(outputs[0][0])["name"] == "colours"


def test_another_sweep_does_not_go_into_its_folder(folder: Path, python: Path) -> None:
    process = started(folder, python, "sweep", "r.yaml", "--set", "train.learning_rate=0.3,0.4")
    wrong = process.communicate()[1]
    assert process.returncode == 2
    assert "holds another sweep" in wrong
    assert "Traceback" not in wrong


def test_a_measure_without_labels_chooses_and_sees_none(folder: Path, python: Path) -> None:
    values = {}
    for name, seed in (("wrong", 1), ("right", 0)):
        rows = list(read_lines(tiny.sentences(folder / "other.jsonl", 24, seed=5)))
        if seed:
            rows = [{**row, "label": "black"} for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{name}.yaml").write_text(
            RECIPE.replace("metric: nll", "metric: infomax").replace(
                "  max_length",
                f"  unlabelled: {{path: {name}.jsonl, text: text, label: label}}\n  max_length",
            )
        )
        said = started(folder, python, "sweep", f"{name}.yaml", f"output_dir=runs/{name}").communicate()
        (search,) = result(folder, name).searches
        values[name] = [t.value for t in search.trials]
        assert search.best == 2, said
        assert (search.metric, search.higher_is_better) == ("infomax", True)
    assert values["wrong"] == values["right"]
    run = folder / "runs/right-sweep" / search.trials[2].folder
    outcomes = list(read_lines(run / "outcomes/tuned-unlabelled.jsonl"))
    assert len(outcomes) == 24
    assert not any("reference" in row or "nll" in row for row in outcomes)


def test_a_measure_without_labels_is_no_claim(folder: Path, python: Path) -> None:
    process = started(folder, python, "run", "right.yaml", "output_dir=runs/once", "--offline")
    wrong = process.communicate()[1]
    assert process.returncode == 0, wrong
    verdict = json.loads((folder / "runs/once/verdict.json").read_text())
    assert [claim["name"] for claim in verdict["claims"]] == ["target", "retention"]
    measured = {(m["suite"], m["metric"]) for m in read_lines(folder / "runs/once/measurements.jsonl")}
    assert {("unlabelled", "infomax"), ("unlabelled", "entropy"), ("unlabelled", "snd")} <= measured
    assert "unlabelled" in (folder / "runs/once/report.md").read_text()
