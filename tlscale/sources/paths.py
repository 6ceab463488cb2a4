"""From what a recipe says to a file on disk, and that file's bytes and text."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from tlscale.errors import DataError
from tlscale.recipe import paths


def resolve(path: str) -> Path:
    """The existing file or folder that `path` means; `builtin:NAME` is a file of the package.

    Raises:
        DataError: there is nothing; the message lists what is in the folder and the nearest name.
    """
    said = paths.missing_file(path)
    if said is not None:
        raise DataError(said if said.startswith(path) else f"{path}: {said}")
    return paths.resolve(path)


def load(path: Path) -> bytes:
    """The bytes of a file, unpacked when its name ends in .gz.

    Raises:
        DataError: the file can't be read or unpacked.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix.lower() == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can't be read: {error}") from error


def decode(content: bytes, where: str) -> str:
    """UTF-8 text without byte-order mark.

    Raises:
        DataError: a byte that isn't UTF-8, or a NUL byte; the message names the line.
    """
    try:
        found = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte-order mark.
        start = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, start) + 1
        raise DataError(
            f"{where}:{line}: byte 0x{content[start]:02x} is not UTF-8; convert the file, for example "
            "with iconv -f latin1 -t utf-8"
        ) from error
    if "\0" in found:
        line = found.count("\n", 0, found.index("\0")) + 1
        raise DataError(f"{where}:{line}: NUL byte; is the file binary or UTF-16? UTF-8 text is needed")
    return found
