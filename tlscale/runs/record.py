"""Writing to a run directory so that a reader never sees half of anything.

Files are written beside their final name, flushed to disk and renamed over it; logs of events are
appended a line at a time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tlscale.errors import BusyError, UsageError, WriteError

CHUNK = 1 << 12


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names `path` in whatever goes wrong while it is written inside.

    Raises:
        WriteError: the system refuses to write.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: can't be written: {error.strerror or error}") from error


@contextmanager
def exclusive(log: Path) -> Iterator[None]:
    """Keeps other processes that ask for the same out of a run, until the end or the death of this one.

    Args:
        log: A file that is only ever appended to; it is made, and stays as it is.

    Raises:
        BusyError: another process is inside.
    """
    import fcntl  # where there is none, nothing runs; planning works everywhere

    with writing(log):
        file = log.open("a", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            said = "another process is at work in this run; wait for it, or give output_dir=ANOTHER"
            raise BusyError(f"{log.parent}: {said}") from error
        yield


def write_text(path: Path, text: str) -> None:
    """Replaces `path` with `text`, atomically; parent folders are made.

    Raises:
        WriteError: the system refuses; what was at `path` is still there, and nothing else is.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def claim(path: Path, text: str) -> bool:
    """Writes `path` unless it exists; of several processes, exactly one gets to write it.

    Raises:
        WriteError: the system refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        try:
            partial.write_text(text, encoding="utf-8")
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
    return True


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` with `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replaces `path` with one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Adds one JSON object to the log at `path`.

    Raises:
        WriteError: the system refuses.
    """
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            end = _whole(file)
            try:
                done = file.write(line)
                if done != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise


def _whole(log: IO[bytes]) -> int:
    """Where a log's last whole line ends; what a kill cut short after it is removed."""
    end = log.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - CHUNK)
        log.seek(start)
        newline = log.read(end - start).rfind(b"\n")
        if newline >= 0 or not start:
            whole = start + newline + 1
            break
        end = start
    else:
        return 0
    if whole != log.seek(0, os.SEEK_END):
        log.truncate(whole)
    return whole


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a log; a last line cut short by a kill is left out.

    Raises:
        UsageError: it is damaged; names the line.
    """
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: not a log of JSON objects: {error}") from error
        yield row


def event(path: Path, happened: str, **facts: Any) -> None:
    """Appends what happened with the wall-clock time in seconds since the epoch."""
    append_line(path, {"time": round(time.time(), 3), "event": happened, **facts})


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
