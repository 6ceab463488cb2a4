"""A run with control arms, through the command line: the verdict is against the best of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.integration import tiny
from tlscale.report.types import CONTROLS

ROOT = Path(__file__).parents[2]


def test_controls_run_beside_the_candidate_and_the_best_is_what_it_must_beat(tmp_path: Path) -> None:
    model, rows = tiny.bert(tmp_path / "bert"), tiny.sentences(tmp_path / "rows.jsonl", 160)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "version": 1,
                "name": "arms",
                "output_dir": str(tmp_path / "run"),
                "model": {"model_name_or_path": str(model), "task": "sequence-classification"},
                "data": {
                    "train": {"path": str(rows), "text": "text", "label": "label"},
                    "test_split": 0.25,
                    "max_length": 32,
                },
                "strategy": {"kind": "full"},
                "train": {"max_steps": 60, "train_batch_size": 16, "learning_rate": 5e-3},
                "hardware": {"device": "cpu"},
                "evaluate": {"against": [*CONTROLS]},
            }
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", "run", str(recipe), "--gate"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    run = tmp_path / "run"
    verdict = json.loads((run / "verdict.json").read_text())
    assert done.returncode == (0 if verdict["word"] in ("POSITIVE", "EQUIVALENT") else 4), done.stderr
    assert f"verdict   {verdict['word']}" in done.stdout
    accuracy = {
        a["arm"]: a["value"]
        for a in verdict["arms"]
        if a["metric"] == "accuracy" and a["suite"] == "target"
    }
    assert set(accuracy) >= {*CONTROLS, "tuned"}
    assert verdict["missing_arms"] == []
    (claim,) = [c for c in verdict["claims"] if c["name"] == "target"]
    controls = {arm: value for arm, value in accuracy.items() if arm != "tuned"}
    assert controls[claim["against"]] == max(controls.values())
    assert claim["effect"] == accuracy["tuned"] - max(controls.values())
    assert (run / "report.html").is_file()
    assert (
        json.loads((run / "arms" / "scratch" / "plan.json").read_text())["recipe"]["model"]["init"]
        == "scratch"
    )
