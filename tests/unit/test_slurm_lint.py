"""Defects in the shapes of batch scripts that others ship are found, and none in ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlscale.cli import main
from tlscale.launching.lint import lint
from tlscale.launching.shell import expansions, statements

SCRIPTS = Path(__file__).with_name("scripts")
ROOT = Path(__file__).parents[2]
KNOWN = {
    "accelerate-shape": {
        ("no-requeue", 0),
        ("no-signal", 0),
        ("unquoted-node-list", 10),
        ("fixed-port", 11),
        ("no-kill-on-bad-exit", 18),
    },
    "torchrun-shape": {
        ("no-requeue", 0),
        ("no-signal", 0),
        ("no-time-limit", 0),
        ("unquoted-node-list", 8),
        ("fixed-port", 13),
        ("no-kill-on-bad-exit", 13),
    },
    "axolotl-shape": {
        ("no-requeue", 0),
        ("no-signal", 0),
        ("variable-in-sbatch", 4),
        ("variable-in-sbatch", 6),
        ("fixed-port", 9),
        ("secret-in-script", 10),
        ("rank-of-batch-shell", 11),
    },
    "handbook-shape": {
        ("no-signal", 0),
        ("log-overwritten", 0),
        ("fixed-port", 9),
        ("unquoted-node-list", 10),
        ("exit-code-lost", 13),
        ("sbatch-ignored", 14),
        ("waits-for-ever", 15),
    },
    "lightning-shape": {("signal-to-launcher", 0), ("loopback-address", 9), ("launcher-per-task", 10)},
    "deaf-shape": {("log-overwritten", 0), ("trap-waits", 9)},
}
OURS = sorted([*(ROOT / "tests" / "golden").glob("slurm-*.sbatch"), *(ROOT / "launch").glob("*.sbatch")])


@pytest.mark.parametrize("name", KNOWN)
def test_each_known_defect_is_found_and_nothing_else(name: str) -> None:
    found = lint((SCRIPTS / f"{name}.sbatch").read_text())
    assert {(one.rule, one.line) for one in found} == KNOWN[name]


def test_all_shapes_are_tried() -> None:
    assert {file.stem for file in SCRIPTS.iterdir()} == set(KNOWN)
    assert len(OURS) >= 4


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_ours_are_clean(file: Path) -> None:
    assert lint(file.read_text()) == ()


def test_the_command_names_places_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = SCRIPTS / "axolotl-shape.sbatch", OURS[0]
    assert main(["lint", str(bad), str(good)]) == 1
    said = capsys.readouterr().out
    assert f"{bad}:4  variable-in-sbatch: #SBATCH lines are not expanded" in said
    assert f"{good}  nothing found" in said
    assert main(["lint", str(good), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {str(good): []}
    assert main(["lint", "nowhere.sbatch"]) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("echo $A", [("A", "none", False)]),
        ('echo "$A"', [("A", "double", False)]),
        ("echo '$A' \\$B", []),
        ("x=$A y=${B}", [("A", "none", True), ("B", "none", True)]),
        ("x=a$A", [("A", "none", False)]),
        ('x="$(f $A "$B")"', [("A", "none", False), ("B", "double", False)]),
        ("x=$((A + $B))", [("B", "none", False)]),
        ("# it's $A\necho $B # $C", [("B", "none", False)]),
        ("cat <<EOF\nit's $A\nEOF\necho '$B'", [("A", "double", False)]),
        ("cat <<'EOF'\nit's $A\nEOF\necho $B", [("B", "none", False)]),
        ("bash -c \"f \\$A 'x $B'\"", [("B", "double", False)]),
        ("echo ${#A[@]} a#$B", [("A", "none", False), ("B", "none", False)]),
    ],
)
def test_expansions_are_those_of_bash(text: str, found: list[tuple[str, str, bool]]) -> None:
    assert [(one.name, one.quoting, one.assigned) for one in expansions(text)] == found


def test_lines_are_joined_and_counted_from_their_first() -> None:
    code = list(statements("#!/bin/bash\nsrun a \\\n  b # c\n\ncat <<'X'\nsrun z\nX\nsrun 'd\ne' &"))
    assert [(one.line, one.text) for one in code] == [
        (2, "srun a b"),
        (5, "cat <<'X'"),
        (8, "srun 'd e' &"),
    ]
