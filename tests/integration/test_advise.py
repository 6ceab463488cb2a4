"""`tlscale advise` and `strategy: {kind: auto}` on small encoders, and Banking77 with one row a class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration import minilm, tiny
from tests.integration.outside import colours, tlscale
from tlscale.recipe.load import read

ROOT = Path(__file__).parents[2]
RECIPE = """\
version: 1
name: colours
model: {model_name_or_path: ./bert, task: sequence-classification}
data:
  train: {path: rows.jsonl, text: text, label: label}
  test: {path: test.jsonl, text: text, label: label}
  max_length: 32
strategy: {kind: auto}
train: {num_train_epochs: 2}
evaluate: {target: [accuracy]}
hardware: {device: cpu}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours(tmp_path_factory.mktemp("advise"), RECIPE, rows=80, test=30)


def test_auto_looks_chooses_and_runs_what_it_chose(folder: Path) -> None:
    done = tlscale(folder, "run", "r.yaml")
    assert done.returncode == 0, done.stderr
    advice = json.loads((folder / "runs/colours-advice/advice.json").read_text())
    chosen = advice["proposals"][0]
    assert f"advice    {advice['word']}" in done.stdout
    assert advice["evidence"]["linear"]["value"] > 0.8, "the mean of the words tells the colour"
    assert advice["evidence"]["shuffled"]["value"] < 0.5
    assert advice["evidence"]["tfidf"]["value"] > 0.8
    ran = json.loads((folder / "runs/colours/plan.json").read_text())["recipe"]
    assert ran["strategy"] == chosen["strategy"]
    assert ran["train"]["num_train_epochs"] == 2.0, "what the recipe says wins over what is advised"
    assert read(folder / "runs/colours-advice/advised.yaml")["strategy"] == chosen["strategy"]


def test_a_race_trains_the_proposals_on_held_out_rows(folder: Path) -> None:
    done = tlscale(folder, "advise", "r.yaml", "output_dir=runs/raced", "--race", "240", "--json")
    assert done.returncode == 0, done.stderr
    advice = json.loads(done.stdout)
    values = [advice["race"].get(proposal["name"]) for proposal in advice["proposals"]]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert known, advice["race"]
    for name in advice["race"]:
        plan = json.loads((folder / f"runs/raced-advice/race/{name}/000/plan.json").read_text())
        assert plan["recipe"]["evaluate"]["split"] == "validation"


def test_a_hopeless_contender_is_stopped_and_stays_behind(folder: Path) -> None:
    """At so small a rate nothing is learned: a head that begins at zero is ahead of one that doesn't."""
    settings = ["train.learning_rate=1e-7", "train.num_train_epochs=8", "train.train_batch_size=8"]
    done = tlscale(
        folder, "advise", "r.yaml", "output_dir=runs/hopeless", "--race", "240", "--json", *settings
    )
    assert done.returncode == 0, done.stderr
    advice = json.loads(done.stdout)
    first, last = (proposal["name"] for proposal in advice["proposals"])
    assert (first, last) == ("features", "lora")
    assert advice["race"]["lora"] is None
    assert advice["reasons"][-1].endswith("Stopped early as hopeless: lora.")
    rows = (folder / "runs/hopeless-advice/race/lora/000/events.jsonl").read_text().splitlines()
    seen = [row["step"] for row in map(json.loads, rows) if row["event"] == "validated"]
    assert len(seen) < 8, "it was stopped before the end"


def test_advice_on_hidden_tokens(folder: Path) -> None:
    tiny.masked_bert(folder / "filling")
    masked = ["model.model_name_or_path=./filling", "model.task=masked-lm", "evaluate.target=null"]
    rows = "{path: rows.jsonl, text: text}"
    done = tlscale(
        folder, "advise", "r.yaml", "output_dir=runs/filling", "--json", *masked, f"data.train={rows}",
        f"data.test={rows}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    advice = json.loads(done.stdout)
    assert (advice["word"], advice["proposals"][0]["name"]) == ("transfer", "full")
    assert 2 < advice["evidence"]["base_nll"] < 5
    assert "nats per hidden token" in advice["reasons"][0]


def test_what_cannot_be_meant_leaves_nothing(folder: Path) -> None:
    done = tlscale(folder, "advise", "r.yaml", "output_dir=elsewhere", "data.train.path=rose.jsonl")
    assert done.returncode == 2
    assert "did you mean rows.jsonl" in done.stderr
    done = tlscale(folder, "plan", "r.yaml")
    assert done.returncode == 2
    assert "tlscale advise" in done.stderr
    assert not (folder / "elsewhere-advice").exists()


def test_one_row_a_class_of_banking77_is_zero_shot(data_root: Path, tmp_path: Path) -> None:
    source = f"{{path: {data_root}/banking77/train.csv, text: text, label: category, per_class: 1}}"
    (tmp_path / "r.yaml").write_text(
        "version: 1\nname: one\nstrategy: {kind: auto}\nhardware: {device: cpu}\n"
        f"model: {{model_name_or_path: {minilm.folder()}, task: sequence-classification}}\n"
        f"data: {{train: {source}, max_length: 128, test_split: 0.0}}\n"
    )
    done = tlscale(tmp_path, "advise", "r.yaml", "--json")
    assert done.returncode == 0, done.stderr
    advice = json.loads(done.stdout)
    assert advice["word"] == "zero-shot suffices"
    assert advice["proposals"][0]["strategy"] == {"kind": "none"}
    assert advice["evidence"]["rows"] == 77
