"""The completion scripts offer what the parser knows: sourced and asked in a real bash."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tlscale.cli import main, parser
from tlscale.cli.completion import bash, commands, zsh

BASH = bash(commands(parser()))


def offered(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`, in `folder`."""
    (folder / "script").write_text(BASH)
    listed = " ".join(f"'{word}'" for word in words)
    program = (
        f"source ./script; rm script; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "
        '_tlscale; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-uc", program], cwd=folder, capture_output=True, text=True, check=True, timeout=20
    )
    assert not done.stderr
    return sorted(line for line in done.stdout.splitlines() if line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.yaml", "two.yml", "rows.csv", "with space.yaml"):
        (tmp_path / name).write_text("")
    (tmp_path / "runs").mkdir()
    return tmp_path


def test_commands_and_their_options(folder: Path) -> None:
    known = [command.name for command in commands(parser())]
    assert offered(folder, "tlscale", "") == sorted([*known, "--help", "--version"])
    assert offered(folder, "tlscale", "pr") == ["predict", "prefetch", "probe"]
    assert offered(folder, "tlscale", "predict", "--m") == ["--max-new-tokens"]
    assert "--output" in offered(folder, "tlscale", "merge", "--")
    assert offered(folder, "tlscale", "completion", "") == ["bash", "zsh"]
    assert offered(folder, "tlscale", "init", "text-l") == ["text-lora"]
    assert offered(folder, "tlscale", "nonsense", "") == []


def test_files_by_what_an_argument_is(folder: Path) -> None:
    recipes = ["one.yaml", "runs", "two.yml", "with space.yaml"]
    assert offered(folder, "tlscale", "run", "") == recipes
    assert offered(folder, "tlscale", "run", "--json", "") == recipes
    assert offered(folder, "tlscale", "predict", "") == ["runs"]
    assert offered(folder, "tlscale", "compare", "runs", "") == ["runs"]
    assert offered(folder, "tlscale", "predict", "runs", "--file", "r") == ["rows.csv", "runs"]
    assert offered(folder, "tlscale", "merge", "--output", "x", "") == ["runs"]
    assert offered(folder, "tlscale", "predict", "runs", "") == []
    assert offered(folder, "tlscale", "run", "one.yaml", "") == []


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == BASH
    assert main(["completion", "zsh"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("#compdef tlscale\n")
    for command in commands(parser()):
        text = command.text.replace("'", "'\\''")
        assert f"'{command.name}:{text}'" in said
    assert "'--file[ask for each row of a data file]:FILE:_files'" in said
    assert "'1:RECIPE:_files -g \"*.(yaml|yml)\"'" in said


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_takes_its_script(tmp_path: Path) -> None:
    (tmp_path / "_tlscale").write_text(zsh(commands(parser())))
    subprocess.run(["zsh", "-n", str(tmp_path / "_tlscale")], check=True)
