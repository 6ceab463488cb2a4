"""A run of two stages that is killed between them, or before a result is verified, ends as if it wasn't."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kit import Bench, adapters_equal, bench, events
from tlscale.runs.ledger import audit
from tlscale.runs.record import read_lines

LORA = {"kind": "peft", "method": "lora", "r": 2, "lora_dropout": 0.1, "target_modules": ["q_proj"]}
STAGES = ("first", "second")
# An operation on a path that has this in it, and the how manieth.
POINTS = {
    "the first result is there, but not verified": ("/stages/first/manifest.json", 1),
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
    stages = [{"name": name, "carry": "merge", "strategy": LORA} for name in STAGES]
    on.recipe(folder, train={"num_train_epochs": 1}, strategy=None, stages=stages)


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
