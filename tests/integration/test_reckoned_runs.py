"""Weights and difficulties in whole runs: a planted label shift of real rows, and a curriculum by loss."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration import minilm, tiny

ROOT = Path(__file__).parents[2]
PLANTED = {"2": 900, "3": 300}  # sports and business


def run(recipe: Mapping[str, Any], folder: Path, *arguments: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(path), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == name]


def written(path: Path, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "text"])
        writer.writerows(rows)
    return {"path": str(path), "text": "text", "label": "label"}


@pytest.fixture(scope="module")
def shifted(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on balanced news whose target has one kind of news three times as often as the other."""
    folder = tmp_path_factory.mktemp("shifted")
    with (data_root / "restricted" / "ag_news_test" / "test.csv").open(newline="") as file:
        news: dict[str, list[str]] = {}
        for label, title, _ in csv.reader(file):
            if label in PLANTED:
                news.setdefault(label, []).append(title)
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "unlabelled": []}
    for label, titles in sorted(news.items()):
        parts["train"] += [(label, title) for title in titles[:150]]
        parts["validation"] += [(label, title) for title in titles[150:550]]
        parts["unlabelled"] += [("?", title) for title in titles[550 : 550 + PLANTED[label]]]
    data: dict[str, Any] = {role: written(folder / f"{role}.csv", rows) for role, rows in parts.items()}
    data |= {"test": data["validation"], "max_length": 48}
    run(
        {
            "version": 1,
            "name": "shifted",
            "output_dir": str(folder / "run"),
            "model": {"model_name_or_path": str(minilm.folder()), "task": "sequence-classification"},
            "data": data,
            "strategy": {"kind": "features"},
            "train": {"max_steps": 20, "importance": {"kind": "label_shift"}},
        },
        folder,
    )
    return folder / "run"


def test_a_planted_label_shift_of_real_rows_is_recovered(shifted: Path) -> None:
    (told,) = events(shifted, "label_shift")
    found = told["weights"]
    planted = {label: count * 2 / 1200 for label, count in PLANTED.items()}
    print({label: (round(found[label], 3), planted[label]) for label in sorted(found)})
    print(f"ratio {found['2'] / found['3']:.3f}, planted 3")
    assert found == pytest.approx(planted, rel=0.1)
    (weights,) = events(shifted, "importance")
    assert weights["rows"] == 300
    # by hand, of weights 1.5 and 0.5: 1 / 1.25 of the rows
    assert weights["effective_rows"] == pytest.approx(240, rel=0.05)


def test_a_run_that_goes_on_reads_the_same_weights(shifted: Path) -> None:
    kept = shifted / "reckoned" / "train.json"
    told = json.loads(kept.read_text())
    assert len(told["weights"]) == 300
    assert sum(told["weights"]) / 300 == pytest.approx(1.0)
    # rows of the kind that the target has more of come first
    assert min(told["weights"][:150]) > 1 > max(told["weights"][150:])
    assert told["difficulty"] is None


def test_a_curriculum_by_loss_and_by_column(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model, rows = tiny.llama(tmp_path / "model"), tiny.sentences(tmp_path / "rows.jsonl", 40)
    hard = [{**json.loads(line), "hard": -at} for at, line in enumerate(rows.read_text().splitlines())]
    rows.write_text("".join(json.dumps(row) + "\n" for row in hard))
    columns = {"path": str(rows), "prompt": "prompt", "completion": "completion"}
    stages = [
        {"name": by, "strategy": {"kind": "full"}, "train": {"curriculum": {"by": by, **more}}}
        for by, more in (("loss", {}), ("column", {"column": "hard", "start": 0.1}))
    ]
    run(
        {
            "version": 1,
            "name": "paced",
            "output_dir": str(tmp_path / "run"),
            "model": {"model_name_or_path": str(model), "task": "causal-lm"},
            "data": {"train": columns, "test": columns, "max_length": 32},
            "stages": stages,
            "train": {"num_train_epochs": 1, "train_batch_size": 8, "learning_rate": 1e-3},
        },
        tmp_path,
    )
    by_column = json.loads((tmp_path / "run" / "reckoned" / "column.json").read_text())["difficulty"]
    assert by_column == [-float(at) for at in range(40)]
    by_loss = json.loads((tmp_path / "run" / "reckoned" / "loss.json").read_text())["difficulty"]
    assert len(set(by_loss)) > 10
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "audit", str(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("exactly once: yes") == 2
