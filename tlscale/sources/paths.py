"""From what a recipe says to a file on disk, and that file's bytes and text."""

from __future__ import annotations

import gzip
import zlib
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath

from tlscale.errors import DataError, nearest

BUILTIN = "builtin:"
_LISTED = 12


def resolve(path: str) -> Path:
    """The existing file or folder that `path` means; `builtin:NAME` is a file of the package.

    Raises:
        DataError: there is nothing; the message lists what is in the folder and the nearest name.
    """
    if path.startswith(BUILTIN):
        name = PurePosixPath(path.removeprefix(BUILTIN))
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise DataError(f"{path}: builtin: takes the plain name of a file in the package")
        found = Path(str(package_files("tlscale"))) / "assets" / name
    else:
        found = Path(path).expanduser()
    if found.exists():
        return found
    raise DataError(f"{path}: {absence(found)}")


def absence(path: Path) -> str:
    """Why there is nothing at `path`, with the names beside it."""
    folder = path.parent
    if not folder.is_dir():
        while not folder.parent.is_dir():
            folder = folder.parent
        path, folder = folder, folder.parent
        problem = f"no such folder {path.name!r}"
    else:
        problem = "no such file"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = nearest(path.name, names)
    hint = f"; did you mean {near}?" if near is not None else ""
    more = f", ... ({len(names)} in all)" if len(names) > _LISTED else ""
    return f"{problem}{hint}; in that folder: {', '.join(names[:_LISTED]) or 'nothing'}{more}"


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
