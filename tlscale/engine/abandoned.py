"""Locks of builds that were killed: every later process would wait for them for ever.

torch compiles extensions under a file named `lock`, which its holder keeps open and removes at the end. A
holder that is killed can't remove it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# On a disk that machines share the holder may be on another one; no build of ours takes so long.
SECONDS = 120.0


def free(folder: Path, *, seconds: float = SECONDS) -> tuple[Path, ...]:
    """Removes locks of builds in `folder` that no process here holds and that are older than `seconds`.

    Returns:
        Those that were removed.
    """
    found = [*folder.glob("*/lock"), *folder.glob("*/*/lock")] if folder.is_dir() else []
    locks = [lock for lock in found if _age(lock) > seconds]
    if not locks:
        return ()
    held = set(_open_files())
    gone = tuple(lock for lock in locks if str(lock.resolve()) not in held)
    for lock in gone:
        lock.unlink(missing_ok=True)
    return gone


def _age(lock: Path) -> float:
    try:
        return time.time() - lock.stat().st_mtime
    except OSError:
        return 0.0


def _open_files() -> Iterator[str]:
    """What the processes of this machine have open, as far as it can be seen."""
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            yield str(entry.readlink())
