"""`tlscale soup` on real small runs: interpolation, averages, and the refusal when nothing is gained."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.integration import tiny
from tests.integration.test_probe import tlscale

RECIPE = """
version: 1
name: soup
model: {model_name_or_path: ./llama, task: causal-lm}
data:
  train: {path: rows.jsonl, prompt: prompt, completion: completion}
  replay: {path: rows.jsonl, prompt: text, completion: label}
  validation_split: 0.2
  max_length: 32
strategy: {kind: peft, method: lora, r: 4, target_modules: all-linear}
train: {learning_rate: 1e-2, max_steps: 12, train_batch_size: 8}
hardware: {device: cpu}
evaluate: {target: [nll]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("soup")
    tiny.llama(made / "llama")
    tiny.sentences(made / "rows.jsonl", 100)
    (made / "r.yaml").write_text(RECIPE)
    for name, more in (("a", []), ("b", ["strategy={kind: full}", "train.learning_rate=3e-3"])):
        done = tlscale(made, "run", "r.yaml", f"output_dir={name}", *more)
        assert done.returncode == 0, done.stderr
    return made


def told(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, float]]:
    return {row["name"]: row["scores"] for row in json.loads(done.stdout)["tried"]}


def test_an_adapter_and_a_checkpoint_in_one_model(folder: Path) -> None:
    done = tlscale(folder, "soup", "a", "b", "-o", "mixed", "--json")
    scores = told(done)
    assert set(scores) == {"a", "b", "mean"}
    beaten = any(
        scores[m]["target"] <= scores["mean"]["target"] and scores[m]["kept"] <= scores["mean"]["kept"]
        for m in "ab"
    )
    assert (done.returncode == 5) == beaten, done.stderr
    assert (folder / "mixed").exists() != beaten
    if not beaten:
        AutoModelForCausalLM.from_pretrained(folder / "mixed")


def test_between_the_base_and_the_result(folder: Path) -> None:
    done = tlscale(folder, "soup", "b", "-o", "between", "--alpha", "0.5,1", "--json")
    scores = told(done)
    assert scores["alpha 1"] == scores["b"], "all the way is the result itself"
    assert scores["base"]["target"] > scores["b"]["target"]
    assert done.returncode == 0, done.stderr
    manifest = json.loads((folder / "between" / "manifest.json").read_text())
    assert manifest["kind"] == "checkpoint"
    assert manifest["soup"]["name"] in {"alpha 0.5", "alpha 1"}
    AutoModelForCausalLM.from_pretrained(folder / "between")


def test_what_cannot_be_meant(folder: Path) -> None:
    for arguments, said in (
        (["a", "-o", "llama"], "exists"),
        (["a", "-o", "x", "--alpha", "2"], "above 0 and at most 1"),
        (["nowhere", "-o", "x"], "not a run directory"),
    ):
        done = tlscale(folder, "soup", *arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
    assert not (folder / "x").exists()
