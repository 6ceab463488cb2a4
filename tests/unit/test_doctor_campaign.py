"""Bad data of every kind: none passes without a word, and each word names the file and the line.

`python -m tests.unit.test_doctor_campaign` prints the table.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.doctor_cases import CASES, Case
from tlscale.recipe.load import check
from tlscale.sources.doctor import Finding, diagnose


def findings(case: Case, root: Path) -> tuple[Finding, ...]:
    """Writes the case's files into `root` and has them examined."""
    for name, content in case.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
    first = next(iter(case.files)).partition("/")[0]
    data: dict[str, Any] = {"train": {"path": str(root / first), **case.train}}
    for role, value in case.more.items():
        data[role] = {**value, "path": str(root / value["path"])} if isinstance(value, dict) else value
    raw = {
        "version": 1,
        "name": "bad",
        "model": {"model_name_or_path": "builtin:pico", "task": case.task},
        "data": data,
        "strategy": {"kind": "full"},
    }
    return diagnose(check(raw, source=case.name))


def said(case: Case, found: tuple[Finding, ...]) -> Finding | None:
    """The finding that is about what is wrong in this case, with its place."""
    fitting = [f for f in found if f.check == case.said and f.severity == case.severity]
    return next((f for f in fitting if case.place in f.message), None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_data_is_told_with_its_place(case: Case, tmp_path: Path) -> None:
    found = findings(case, tmp_path)
    assert said(case, found) is not None, "\n".join(map(str, found)) or "passed without a word"


def test_there_are_enough_and_their_names_differ() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


def main() -> int:
    """Prints the table of all cases; returns how many weren't told."""
    missed = silent = 0
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            found = findings(case, root)
            one = said(case, found)
            missed, silent = missed + (one is None), silent + (not found)
            text = one.message.replace(f"{root}/", "") if one else "NOT TOLD"
            print(f"{case.name:<26} {case.severity:<8} {case.said:<16} {text}")
    print(f"\n{len(CASES)} bad inputs, {silent} without a word, {missed} not told with their place")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
