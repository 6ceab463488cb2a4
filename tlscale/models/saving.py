"""Folders that appear whole or not at all, and what is said when a disk is full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tlscale.errors import WriteError
from tlscale.runs.layout import MANIFEST
from tlscale.runs.record import sha256, sync_folder, writing


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


def hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """What a manifest vouches for: every file below `folder` with its digest and size."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): {"sha256": sha256(p), "bytes": p.stat().st_size} for p in files}


def into_place(partial: Path, target: Path) -> None:
    """Renames a whole folder over `target`, so that it survives a power cut.

    Files get the mode of their manifest or config: safetensors are written for their owner alone, and
    others on a cluster couldn't load the result.
    """
    plain = next(p for p in (partial / MANIFEST, partial / "config.json") if p.is_file())
    for path in partial.rglob("*"):
        if path.is_file():
            shutil.copymode(plain, path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(partial)
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    sync_folder(target.parent)
