"""`tlscale run` again: rows that it reads while it trains, a changed recipe, numbers that went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.faults.kit import (
    ROOT,
    Bench,
    adapters_equal,
    alive,
    audited,
    bench,
    events,
    last_losses,
    none_left,
)
from tests.integration import tiny
from tlscale.runs.ledger import audit

ROWS = 60


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("streams") / "bench") as made:
        (made.root / "shards").mkdir()
        tiny.sentences(made.root / "all.jsonl", ROWS, seed=5)
        lines = (made.root / "all.jsonl").read_text().splitlines(keepends=True)
        for number in range(3):
            (made.root / "shards" / f"{number}.jsonl").write_text("".join(lines[number * 20 :][:20]))
        yield made


def recipe(on: Bench, folder: Path, **train: Any) -> None:
    columns = {"prompt": "prompt", "completion": "completion"}
    source = {**columns, "path": str(on.root / "shards"), "streaming": True, "shuffle_buffer": 8}
    test = {**columns, "path": str(on.root / "rows.jsonl"), "limit": 4}
    on.recipe(
        folder,
        data={"train": source, "test": test},
        train={"max_steps": 12, "num_train_epochs": 1, **train},
    )


def blocks(folder: Path) -> list[Path]:
    return sorted((folder / "run" / "examples" / "stream").glob("block-*"))


def test_a_stream_trains_and_goes_on_to_the_same_bits(on: Bench, tmp_path: Path) -> None:
    straight, hurt, short = (tmp_path / name for name in ("straight", "hurt", "short"))
    recipe(on, straight)
    code, err = on.run(straight)
    assert code == 0, err
    assert len(blocks(straight)) == 8
    recipe(on, hurt, dataloader_num_workers=2)
    code, _ = on.run(hurt, fault={"point": "optimizer", "nth": 6, "act": "SIGKILL"})
    assert code == -signal.SIGKILL or code == 1
    assert none_left(hurt)
    there = {path.name: path.stat().st_ino for path in blocks(hurt)}
    code, err = on.run(hurt)
    assert code == 0, err
    assert there.items() <= {path.name: path.stat().st_ino for path in blocks(hurt)}.items(), "read once"
    assert adapters_equal(hurt, straight)
    wanted, found = last_losses(straight), last_losses(hurt)
    assert found == {step: wanted[step] for step in found}
    proof = audit(hurt / "run" / "ledger" / "train", "train")
    assert proof is not None
    assert not proof.problems
    assert proof.epochs == ((60, 0, 0), (12, 0, 48))
    recipe(on, short, max_steps=1)
    assert on.run(short)[0] == 0
    assert len(blocks(short)) == 1, "no more is read than is trained on"
    assert [event["rows"] for event in events(short, "data") if event.get("part")] == [8]


def test_a_broken_row_ends_a_stream_where_it_comes(on: Bench, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        (on.root / "all.jsonl").read_text() + json.dumps({"prompt": 3, "completion": "a"}) + "\n"
    )
    recipe(on, tmp_path / "run", dataloader_num_workers=1)
    raw = json.loads((tmp_path / "run" / "recipe.yaml").read_text())
    raw["data"]["train"]["path"] = str(tmp_path / "rows.jsonl")
    (tmp_path / "run" / "recipe.yaml").write_text(json.dumps(raw))
    code, err = on.run(tmp_path / "run")
    assert code != 0
    assert "rows.jsonl:61: column 'prompt' is 3; text is needed" in err
    assert none_left(tmp_path / "run")


def test_helpers_go_with_a_run_that_is_killed(on: Bench, tmp_path: Path) -> None:
    """They hear no signals, and need no goodbye."""
    recipe(on, tmp_path, dataloader_num_workers=3)
    process = on.start(
        tmp_path, "run", "recipe.yaml", "--offline", fault={"point": "forward", "nth": 2, "act": "sleep"}
    )
    while not (tmp_path / "when").exists():
        assert process.poll() is None
    (worker,) = [
        int(line.split()[1])
        for line in (tmp_path / "notes").read_text().splitlines()
        if line.startswith("tlscale.worker ")
    ]
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    helpers = [int(pid) for pid in children if b"watchdog" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(helpers) == 3
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(helpers[0], number)
    assert alive(helpers[0]), "it hears nothing but the end of its run"
    os.kill(worker, signal.SIGKILL)
    process.communicate(timeout=60)
    assert none_left(tmp_path)
    until = time.monotonic() + 10
    while any(alive(pid) for pid in helpers):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_changed_recipe_goes_on_when_told_to_and_only_where_it_computes_the_same(
    on: Bench, tmp_path: Path
) -> None:
    straight, changed = tmp_path / "straight", tmp_path / "changed"
    on.recipe(straight)
    on.recipe(changed)
    assert on.run(straight)[0] == 0
    assert on.run(changed, fault={"point": "optimizer", "nth": 5, "act": "SIGTERM"})[0] == 75
    plan = json.loads((changed / "run" / "plan.json").read_text())["fingerprint"]
    on.recipe(changed, train={"learning_rate": 2e-2})
    code, err = on.run(changed, "--resume-changed")
    assert code == 2
    assert "train.learning_rate: 0.01 -> 0.02" in err
    assert "can't go on with another train.learning_rate" in err
    on.recipe(changed, train={"save_steps": 3, "async_save": True, "dataloader_num_workers": 1})
    code, err = on.run(changed)
    assert code == 2
    assert "Give --resume-changed to go on" in err
    assert json.loads((changed / "run" / "plan.json").read_text())["fingerprint"] == plan
    code, err = on.run(changed, "--resume-changed")
    assert code == 0, err
    assert adapters_equal(changed, straight)
    assert [event["lost_steps"] for event in events(changed, "resumed")] == [0]
    assert (changed / "run" / "plans" / f"{plan}.json").is_file()


def test_a_step_that_went_wrong_is_repeated_row_by_row(on: Bench, tmp_path: Path) -> None:
    on.recipe(tmp_path, train={"learning_rate": 1e30, "max_grad_norm": 0.0})
    assert on.run(tmp_path)[0] == 1
    assert "tlscale replay" in (tmp_path / "run" / "FAILED").read_text()
    (bad,) = events(tmp_path, "not_finite")
    (kept,) = (tmp_path / "run" / "replay" / "train").iterdir()
    done = subprocess.run(
        [str(on.python), "-m", "tlscale", "replay", "run", "--json"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert ", ".join(row["where"] for row in rows) == bad["rows"]
    assert {row["step"] for row in rows} == {kept.name}
    assert not all(row["finite"] for row in rows)
    assert all(row["first"] for row in rows if not row["finite"]), "the part that went wrong is named"


@pytest.mark.long
@pytest.mark.parametrize("before", ["zero2", "zero3"])
def test_optimizer_states_that_were_shared_out_come_together(
    before: str, on: Bench, tmp_path: Path
) -> None:
    """ZeRO on two processes is stopped, and a single process goes on with its weights and averages."""
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    still = {"strategy": {"lora_dropout": 0.0}}
    on.recipe(straight, **still)
    assert on.run(straight)[0] == 0
    on.recipe(moved, **still, hardware={"processes": 2, "sharding": before})
    code, err = on.run(
        moved, fault={"point": "optimizer", "nth": 5, "act": "SIGTERM", "rank": 0}, seconds=300.0
    )
    assert code == 75, err
    on.recipe(moved, **still)
    code, err = on.run(moved, "--resume-changed")
    assert code == 0, err
    (again,) = events(moved, "resumed")
    assert (again["lost_steps"], again["processes_before"]) == (0, 2)
    assert audited(moved)
    wanted, found = last_losses(straight), last_losses(moved)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert differing(straight, moved) <= 1e-5


def differing(one: Path, other: Path) -> float:
    """The largest difference of two runs' adapters."""
    mine, theirs = (load_file(f / "run" / "adapter" / "adapter_model.safetensors") for f in (one, other))
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def test_adapters_of_tasks_go_on_to_the_same_bits(on: Bench, tmp_path: Path) -> None:
    straight, hurt = tmp_path / "straight", tmp_path / "hurt"
    colour = {"path": str(on.root / "rows.jsonl"), "text": "text", "label": "label"}
    tasks = {"tasks": {"colour": colour, "thing": {**colour, "label": "completion"}}}
    for folder in (straight, hurt):
        raw = json.loads(on.recipe(folder).read_text())
        raw["model"]["task"] = "sequence-classification"
        raw["data"] = {"train": tasks, "test": tasks, "max_length": 32}
        raw["strategy"]["head"] = "pooled"
        raw["train"]["multi_task"] = {"adapters": "both", "balance": "uncertainty"}
        (folder / "recipe.yaml").write_text(json.dumps(raw))
    code, err = on.run(straight)
    assert code == 0, err
    code, _ = on.run(hurt, fault={"point": "optimizer", "nth": 7, "act": "SIGKILL"})
    assert code == -signal.SIGKILL or code == 1
    code, err = on.run(hurt)
    assert code == 0, err
    for part in ("shared", "task_colour", "task_thing"):
        mine, theirs = (
            load_file(f / "run" / "adapter" / part / "adapter_model.safetensors") for f in (straight, hurt)
        )
        assert mine.keys() == theirs.keys()
        assert all(bool((mine[name] == theirs[name]).all()) for name in mine), part
