"""The command line as a user meets it: a process of its own, in a folder with a small encoder and rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration import tiny

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """This process's variables, with the package of this tree and without the Hub."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def tlscale(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`tlscale ARGUMENTS` in `folder`, whatever its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "tlscale", *arguments], cwd=folder, env=environment(), check=False,
        capture_output=True, text=True,
    )  # fmt: skip


def colours(folder: Path, recipe: str, **rows: int) -> Path:
    """`folder` with an encoder in bert/, a recipe in r.yaml, and so many rows in each of NAME.jsonl.

    The files differ: each is drawn by its place.
    """
    (folder / "bert").mkdir()
    tiny.bert(folder / "bert")
    for seed, (name, count) in enumerate(rows.items()):
        tiny.sentences(folder / f"{name}.jsonl", count, seed=seed)
    (folder / "r.yaml").write_text(recipe)
    return folder
