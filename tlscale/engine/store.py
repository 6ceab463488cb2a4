"""Folders written as one transaction, and read only when they are what their manifest says.

A folder is written beside its final name: the parts, then the manifest with their sizes and digests, each
flushed to disk; then it is renamed, and the rename is flushed. A kill or a full disk at any point leaves
either the whole folder or none, and never touches one that was there before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.models.saving import saving
from tlscale.runs.layout import MANIFEST
from tlscale.runs.record import sha256, sync_folder, write_json

Part = Callable[[Path], None]


@dataclass(frozen=True)
class Found:
    """The newest whole folder, if any, and why newer ones were passed over."""

    folder: Path | None
    passed_over: tuple[str, ...] = ()


def commit(target: Path, parts: Mapping[str, Part], about: Mapping[str, Any]) -> None:
    """Writes `target` with a file for each of `parts`, each written by its function to the given path.

    Raises:
        WriteError: the system refuses; whatever was at `target` and beside it is as before.
    """
    with saving(target) as partial:
        files = {}
        for name, write in parts.items():
            write(partial / name)
            _sync(partial / name)
            files[name] = {"size": (partial / name).stat().st_size, "sha256": sha256(partial / name)}
        write_json(partial / MANIFEST, {**about, "files": files})
        _replace(partial, target)
        sync_folder(target.parent)


def _replace(partial: Path, target: Path) -> None:
    """Renames `partial` to `target`, which may exist; a kill in between leaves an older folder at worst."""
    before = target.with_name(f".{target.name}.before.partial")
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        target.rename(before)
    partial.rename(target)
    shutil.rmtree(before, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fault(folder: Path, key: str) -> str | None:
    """Why `folder` must not be loaded by a run of `key`; `None` when it is whole."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        written_for, files = said["key"], dict(said["files"])
        expected = {str(name): (int(one["size"]), str(one["sha256"])) for name, one in files.items()}
    except FileNotFoundError:
        return "it has no manifest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest can't be read ({error})"
    if written_for != key:
        return "it belongs to another plan"
    for name, (size, digest) in expected.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, not {size:,}"
        try:
            found = sha256(path)
        except OSError as error:
            return f"{name} can't be read ({error.strerror or error})"
        if found != digest:
            return f"{name} was changed after it was written"
    return None


def newest(folder: Path, pattern: str, key: str) -> Found:
    """The newest whole folder of `folder` that matches `pattern`, by name."""
    passed: list[str] = []
    for candidate in sorted(folder.glob(pattern), reverse=True):
        reason = fault(candidate, key)
        if reason is None:
            return Found(candidate, tuple(passed))
        passed.append(f"{candidate.name}: {reason}")
    return Found(None, tuple(passed))


def prune(
    folder: Path, pattern: str, *, keep: int, last: Path, key: str, needed: frozenset[str] = frozenset()
) -> None:
    """Removes all but the `keep` newest whole folders up to `last`, and what can't be loaded.

    Nothing is removed unless `last` is whole on disk; those named in `needed` stay.
    """
    if fault(last, key) is not None:
        return
    older = [found for found in sorted(folder.glob(pattern)) if found != last]
    whole = [found for found in older if found.name < last.name and _looks_whole(found)]
    for found in older:
        if found not in whole[len(whole) - keep + 1 :] and found.name not in needed:
            shutil.rmtree(found, ignore_errors=True)


def needed(folder: Path, pattern: str) -> frozenset[str]:
    """The folders that others, which match `pattern`, name as theirs."""
    return frozenset(name for found in folder.glob(pattern) for name in _manifest(found).get("needs", ()))


def _looks_whole(folder: Path) -> bool:
    """Sizes only: digests of folders that were whole when written are read again when they are loaded."""
    files = _manifest(folder).get("files")
    if not files:
        return False
    try:
        return all((folder / name).stat().st_size == one["size"] for name, one in files.items())
    except OSError:
        return False


def _manifest(folder: Path) -> dict[str, Any]:
    """What the manifest says; nothing where there is none that can be read."""
    try:
        said: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-written."""
    for left in folder.glob(".*.partial"):
        shutil.rmtree(left, ignore_errors=True)
