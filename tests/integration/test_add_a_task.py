"""The walk in docs/add-a-task.md, followed to the letter: its files, its commands, its scores."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tlscale.runs.record import read_lines

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-task.md").read_text(encoding="utf-8")
LONGEST = 40


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, its task installed as a package of its own would be."""
    root = tmp_path_factory.mktemp("walk")
    (root / "quiz").mkdir()
    (root / "quiz" / "capitals.jsonl").write_text(blocks("json")[0])
    (code,) = blocks("python")
    (root / "capitals.py").write_text(code)
    (root / "capitals.yaml").write_text(blocks("yml")[0])
    about = root / "capitals-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: capitals\nVersion: 1.0\n")
    (target,) = re.findall(r'^    capitals = "(.*)"$', PAGE, re.MULTILINE)
    (about / "entry_points.txt").write_text(f"[tlscale.tasks]\ncapitals = {target}\n")
    return root


def said(command: str, folder: Path, code: int = 0) -> str:
    """What a command of the page prints, typed in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_the_task_has_fewer_than_40_lines() -> None:
    (code,) = blocks("python")
    assert len(code.splitlines()) < LONGEST


def test_the_pages_commands_do_what_it_says(folder: Path) -> None:
    show, score = blocks("bash")[0].strip().splitlines()
    assert "capitals" in said("tlscale tasks", folder)
    shown = said(show, folder)
    assert "choice, 3 items; acc, acc_norm" in shown
    assert "Question: What is the capital of Canada?\\nAnswer:" in shown
    assert "' Ottawa'" in shown
    (told,) = json.loads(said(f"{show} --json", folder))
    assert told["requests"][0]["options"] == [" Toronto", " Ottawa", " Montreal"]
    assert (told["items"], told["examples_from"], told["right"]) == (3, 3, "1")
    listed = {one["name"]: one["kind"] for one in json.loads(said("tlscale tasks --json", folder))}
    assert listed["capitals"] == "choice"
    scored = said(score, folder)
    assert "capitals-1shot" in scored
    rows = list(read_lines(folder / "evals/pico/measurements.jsonl"))
    assert {(row["suite"], row["metric"], row["n"]) for row in rows} == {
        (suite, metric, 3) for suite in ("capitals", "capitals-1shot") for metric in ("acc", "acc_norm")
    }
    outcomes = list(read_lines(folder / "evals/pico/outcomes/base-capitals.jsonl"))
    assert [one["where"] for one in outcomes] == [f"capitals.jsonl:{line}" for line in (4, 5, 6)]
    assert all(len(one["scores"]) == 3 for one in outcomes)


def test_the_same_without_python_gives_the_same(folder: Path) -> None:
    (command,) = re.findall(r"^    (tlscale eval .*\.yaml)$", PAGE, re.MULTILINE)
    said(command, folder)
    declared, coded = (
        {
            row["where"]: row["scores"]
            for row in read_lines(folder / f"evals/pico/outcomes/base-{name}.jsonl")
        }
        for name in ("capitals-yaml", "capitals")
    )
    assert len(declared) == 6
    # other items beside them, so other rounding
    assert all(coded[where] == pytest.approx(declared[where], abs=1e-4) for where in coded)
    assert len(coded) == 3
