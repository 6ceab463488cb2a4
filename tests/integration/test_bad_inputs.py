"""The bad input campaign: every case of the table, and runs that are killed, stopped or started twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import bad_inputs
from tests.integration.bad_inputs import CASES, FULL, Case, World, attempt, faults, laid_over, listing
from tests.integration.warm import Warm
from tlscale.runs.record import exclusive

ROOT = Path(__file__).parents[2]
LONG = ("run", "recipe.yaml", "train.max_steps=150", "train.save_steps=10")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Models, a finished run and a process that starts workers at once."""
    root = tmp_path_factory.mktemp("bad")
    with Warm(root) as python:
        yield bad_inputs.build(root / "world", python)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_told_and_leaves_nothing(case: Case, world: World, tmp_path: Path) -> None:
    outcome = attempt(case, world, tmp_path)
    assert not faults(case, outcome), f"{outcome.out}\n{outcome.err}"


def test_names_differ_and_no_strangers_code_ran(world: World) -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert not list(world.root.parents[1].rglob("ran"))


class Started:
    """A run in `root` that goes on while it is looked at."""

    def __init__(self, world: World, root: Path) -> None:
        shutil.copy(world.root / "rows.jsonl", root)
        (root / "recipe.yaml").write_text(json.dumps(bad_inputs.recipe_of(world, root)))
        self._world, self._root, self._notes = world, root, root / "notes"
        self.run = root / "runs" / "tiny"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self._world.python), "-m", "tlscale", *arguments],
            cwd=self._root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "WARM_NOTES": str(self._notes)},
        )

    def process(self, module: str) -> int:
        started = [line.split() for line in self._notes.read_text().splitlines()]
        (number,) = [int(number) for name, number in started if name == module]
        return number

    def reaches(self, name: str) -> None:
        until = time.monotonic() + 60
        while not (self.run / name).exists():
            assert time.monotonic() < until, f"{name} did not come"
            time.sleep(0.01)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]

    def halves(self) -> list[Path]:
        return [path for path in self.run.rglob("*") if ".partial" in path.name]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_interrupted_run_goes_on_from_its_last_checkpoint(
    how: str, world: World, tmp_path: Path
) -> None:
    started = Started(world, tmp_path)
    command = started.start(*LONG)
    started.reaches("checkpoints/train/step-000020/manifest.json")
    if how == "killed":
        os.kill(started.process("tlscale.worker"), signal.SIGKILL)
    else:
        # as a terminal does: the whole foreground group hears of Ctrl-C
        for module in ("tlscale.worker", "tlscale"):
            os.kill(started.process(module), signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert "Traceback" not in err, err
    if how == "killed":
        assert command.returncode == 1
        assert err.count("the worker was ended by SIGKILL") == 1
        assert "give the same command again" in err
    else:
        assert command.returncode == 130
        assert err.startswith("\nstopped by SIGINT after step ")
        assert err.endswith("\nstopped\n")
        assert not started.halves()
    assert not (started.run / "DONE").exists()
    assert not (started.run / "adapter").exists()
    command = started.start(*LONG)
    _, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    resumed = [event for event in started.events() if event["event"] == "resumed"]
    assert len(resumed) == 1
    assert int(str(resumed[0]["step"])) >= 20
    assert (started.run / "DONE").is_file()
    assert not started.halves()


def test_of_two_runs_in_one_directory_one_works(world: World, tmp_path: Path) -> None:
    started = Started(world, tmp_path)
    first = started.start(*LONG)
    started.reaches("checkpoints/train/step-000010/manifest.json")
    second = started.start(*LONG)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert err.count("another process is at work in this run") == 1, err
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert [event["event"] for event in started.events()].count("start") == 1
    assert not (started.run / "FAILED").exists()


def test_a_run_that_is_worked_on_is_left_alone(world: World, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tiny"
    shutil.copytree(world.run, run, symlinks=True)
    before = listing(run)
    with exclusive(run / "events.jsonl"):
        done = bad_inputs.started(world, tmp_path, ["eval", "runs/tiny"])
    assert done.returncode == 2
    assert "another process is at work in this run" in done.stderr
    assert listing(run) == before


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_takes_no_more(how: str, world: World, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=192k" if how == "full" else "ro", "none", str(runs)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    try:
        said = ("can't be written", "No space left")
        case = Case(how, "run recipe.yaml", 1, said, FULL, worker=True, leaves=("runs/*",))
        if how == "read-only":
            case = Case(how, "run recipe.yaml", 2, ("can't be written: Read-only file system",))
        outcome = attempt(case, world, tmp_path)
        assert not faults(case, outcome), f"{outcome.out}\n{outcome.err}"
    finally:
        subprocess.run(["umount", str(runs)], check=True)


def test_a_half_installed_bitsandbytes_in_a_real_worker(world: World, tmp_path: Path) -> None:
    """Nothing is imported beforehand here, as it is elsewhere in this file."""
    cold = World(world.root, Path(sys.executable))
    case = Case(
        "bitsandbytes", "run recipe.yaml model.quantization=nf4", 2, ("bitsandbytes can't be imported",),
        files={"shim/bitsandbytes/__init__.py": bad_inputs.BROKEN}, worker=True, leaves=bad_inputs.TRIED,
        environment={"PYTHONPATH": f"{tmp_path / 'shim'}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    outcome = attempt(case, cold, tmp_path)
    assert not faults(case, outcome), f"{outcome.out}\n{outcome.err}"


def test_laying_over_takes_away_what_is_none() -> None:
    assert laid_over({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"c": 2}}
