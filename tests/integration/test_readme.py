"""The README's commands do what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
# Training is shortened; that it learns is what the quickstart and the tests of the engine are for.
SHORTER = ("train.max_steps=2", "evaluate.max_rows=4", "data.max_length=64")


def test_the_readme_has_its_commands() -> None:
    assert {"make quickstart", "make test"} <= set(COMMANDS)
    assert all(command.split()[0] in {"make", "tlscale"} for command in COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_knows_what_to_do(command: str) -> None:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))
    }
    _, *targets = shlex.split(command)
    done = subprocess.run(
        ["make", "-n", *targets], check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "configs/quickstart.yaml" in done.stdout if "quickstart" in command else "pytest" in done.stdout


def test_the_recipe_and_its_commands_work(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", README, re.DOTALL)
    assert examples
    for name, text in examples:
        (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    for command in (command for command in COMMANDS if command.startswith("tlscale ")):
        _, *arguments = shlex.split(command)
        more = SHORTER if arguments[0] == "run" else ()
        done = subprocess.run(
            [sys.executable, "-m", "tlscale", *arguments, *more],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
