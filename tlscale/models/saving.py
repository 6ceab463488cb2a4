"""Folders that appear whole or not at all, and what is said when a disk is full."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tlscale.errors import WriteError
from tlscale.runs.record import writing


def fresh_folder(target: Path) -> Path:
    """An empty folder beside `target`, to be renamed over it."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


@contextmanager
def saving(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` to write to and to rename; gone at the end in any case.

    Raises:
        WriteError: the system refuses to write; what was at `target` is still there.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        with writing(target):
            yield fresh_folder(target)
    except SafetensorError as error:
        raise WriteError(f"{target}: can't be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
