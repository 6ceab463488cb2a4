"""Runs that are killed between stages, before a result is verified, or after rows were weighed or ordered.

They end as if they weren't.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.faults.kit import Bench, adapters_equal, audited, bench, events, last_losses
from tests.integration import tiny
from tlscale.runs.layout import RunLayout
from tlscale.runs.ledger import audit
from tlscale.runs.record import read_lines

POOLED = {"kind": "peft", "method": "lora", "r": 2, "target_modules": ["query"], "head": "pooled"}
LORA = {"kind": "peft", "method": "lora", "r": 2, "lora_dropout": 0.1, "target_modules": ["q_proj"]}
STAGES = ("first", "second")
# An operation on a path that has this in it, and the how manieth.
POINTS = {
    "the first result is there, but not verified": ("/stages/first/manifest.json", 1),
    "the first result is being scored": ("/standing/outcomes/.first-validation", 1),
    "the first result is being merged into the base": ("/stages/.first-merged.partial", 3),
    "the second stage is about to save for the first time": ("/checkpoints/second", 1),
    "the last result is there, but not verified": ("/stages/second/manifest.json", 1),
}


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("stages") / "bench") as made:
        yield made


@pytest.fixture(scope="module")
def straight(on: Bench) -> Path:
    folder = on.root / "straight"
    write(on, folder)
    code, err = on.run(folder)
    assert code == 0, err
    return folder


def write(on: Bench, folder: Path) -> None:
    """Two stages of six steps, saved every second one; the first is merged before the second begins."""
    carried: list[dict[str, str]] = [{}, {"carry": "merge"}]
    stages = [{"name": name, **how, "strategy": LORA} for name, how in zip(STAGES, carried, strict=True)]
    columns = {"path": str(on.root / "rows.jsonl"), "prompt": "prompt", "completion": "completion"}
    data = {"validation": {**columns, "limit": 4}}
    on.recipe(folder, train={"num_train_epochs": 1}, data=data, strategy=None, stages=stages)


@pytest.mark.parametrize("when", POINTS)
def test_a_kill_between_stages_changes_nothing(
    on: Bench, straight: Path, tmp_path: Path, when: str
) -> None:
    part, nth = POINTS[when]
    folder = tmp_path / "trial"
    write(on, folder)
    fault = {"point": f"path:{part}", "nth": nth, "act": "SIGKILL", "rank": 0}
    code, _ = on.run(folder, fault=fault)
    assert code != 0
    assert not (folder / "run" / "DONE").exists()
    done_before = (folder / "run" / "stages" / "first" / "manifest.json").is_file()
    assert done_before

    code, err = on.run(folder)
    assert code == 0, err
    assert adapters_equal(folder, straight)
    assert losses(folder) == losses(straight)
    assert standing(folder) == standing(straight)
    assert set(standing(folder)) == {("base", "nll"), ("first", "nll"), ("second", "nll")}
    for stage in STAGES:
        made = audit(folder / "run" / "ledger" / stage, stage)
        assert made is not None
        assert (made.problems, made.complete, made.steps) == ((), 1, 6)
    # each result was verified, by whichever try had the time for it
    assert [event["stage"] for event in events(folder, "verified")] == list(STAGES)


def losses(folder: Path) -> dict[tuple[str, int], float]:
    """The loss of each step of each stage, of the last time that it was taken."""
    found, stage = {}, ""
    for row in read_lines(folder / "run" / "events.jsonl"):
        stage = row["name"] if row["event"] == "stage" else stage
        if row["event"] == "step":
            found[stage, row["step"]] = row["loss"]
    return found


def sections(on: Bench, asked: dict[str, Any]) -> dict[str, Any]:
    """A recipe with what is `asked` in train: of a language model, or of a classifier that weighs rows."""
    if "importance" not in asked:
        return {"train": asked}
    tiny.bert(on.root / "bert")
    tiny.sentences(on.root / "more.jsonl", 20, seed=1)
    columns = {"path": str(on.root / "rows.jsonl"), "text": "text", "label": "label"}
    unlabelled = {"path": str(on.root / "more.jsonl"), "text": "prompt"}
    return {
        "model": {"model_name_or_path": str(on.root / "bert"), "task": "sequence-classification"},
        "data": {"train": columns, "test": columns, "unlabelled": unlabelled},
        "strategy": POOLED,
        "train": asked,
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"curriculum": {"by": "loss", "epochs": 2}},
        {"importance": {"kind": "covariate"}, "curriculum": {"by": "length"}},
    ],
    ids=["curriculum", "weights"],
)
def test_a_killed_run_goes_on_with_what_was_reckoned(
    on: Bench, asked: dict[str, Any], tmp_path: Path
) -> None:
    straight, folder, made = tmp_path / "straight", tmp_path / "trial", sections(on, asked)
    for one in (straight, folder):
        on.recipe(one, **made)
    code, err = on.run(straight)
    assert code == 0, err
    code, _ = on.run(folder, fault={"point": "optimizer", "nth": 5, "act": "SIGKILL", "rank": 0})
    assert code != 0
    kept = folder / "run" / "reckoned" / "train.json"
    before = kept.stat().st_mtime_ns
    code, err = on.run(folder)
    assert code == 0, err
    assert [event["step"] for event in events(folder, "resumed")] == [4]
    assert kept.stat().st_mtime_ns == before, "it is not reckoned again"
    assert kept.read_bytes() == (straight / "run" / "reckoned" / "train.json").read_bytes()
    assert last_losses(folder) == last_losses(straight)
    assert audited(folder)
    mine, theirs = (saved(one / "run" / "adapter") for one in (folder, straight))
    assert mine.keys() == theirs.keys()
    assert all(bool((mine[name] == theirs[name]).all()) for name in mine)


def saved(folder: Path) -> dict[str, Any]:
    """Every tensor of a result."""
    return {
        f"{path.name} {n}": t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()
    }


def standing(folder: Path) -> dict[tuple[str, str], float]:
    """What the base and each stage scored on the validation rows."""
    rows = read_lines(RunLayout(folder / "run").standing.measurements)
    return {(row["arm"], row["metric"]): row["value"] for row in rows if row["metric"] == "nll"}
