"""The user's own `accelerate launch` on a recipe, with shipped config files, and where it contradicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import kit
from tests.integration import tiny
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines

ROOT = Path(__file__).parents[2]
SHIPPED = {"cpu": "ddp", "ddp": "ddp"}
# these start what is most unlike the rest; the others are for a quiet machine
SHORT = ("fsdp2.yaml", "zero3.json")


def shipped() -> list[Any]:
    """Every file under `launch` that `accelerate launch` reads."""
    files = sorted([*(ROOT / "launch/accelerate").glob("*"), *(ROOT / "launch/deepspeed").glob("*")])
    return [
        pytest.param(file, id=file.name, marks=() if file.name in SHORT else pytest.mark.long)
        for file in files
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that leaves processes and sharding open."""
    root = tmp_path_factory.mktemp("starts")
    model, rows = tiny.llama(root / "llama"), tiny.sentences(root / "rows.jsonl", 24)
    made = kit.recipe("open", model, rows, train={"max_steps": 3}, output_dir=str(root / "run"))
    made["hardware"] = {"device": "cpu"}
    (root / "recipe.yaml").write_text(json.dumps(made))
    return root / "recipe.yaml"


def launch(recipe: Path, file: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    if file.suffix == ".json":
        config = ["--use_deepspeed", "--deepspeed_config_file", str(file), "--num_processes", "2"]
    else:
        config = ["--config_file", str(file)]
    return subprocess.run(
        [
            sys.executable, "-m", "accelerate.commands.launch", *config, "--main_process_port", "0",
            "-m", "tlscale.worker", str(recipe), *overrides,
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=kit.SECONDS,
    )  # fmt: skip


@pytest.mark.parametrize("file", shipped())
def test_a_recipe_runs_as_the_launcher_was_told(written: Path, file: Path) -> None:
    output, backend = written.parent / file.name, SHIPPED.get(file.stem, file.stem)
    done = launch(written, file, f"output_dir={output}")
    assert done.returncode == 0, done.stderr[-3000:]
    layout = RunLayout(output)
    plan = read_plan(layout.plan)
    assert (plan.world.backend, plan.world.processes) == (backend, 2)
    assert layout.done.is_file()
    assert [row["max_difference"] for row in read_lines(layout.events) if row["event"] == "verified"] == [
        0.0
    ]
    assert layout.recipe.is_file()


def test_a_launcher_that_contradicts_the_recipe_is_stopped(written: Path) -> None:
    output = written.parent / "contradicted"
    done = launch(
        written,
        ROOT / "launch/accelerate/fsdp2.yaml",
        f"output_dir={output}",
        "hardware.sharding=none",
    )
    assert done.returncode != 0
    assert (
        "the plan is for sharding none with offload none, but accelerate was told of fsdp2" in done.stderr
    )
    assert not (output / "stages").exists()
    assert not (output / "DONE").exists()
