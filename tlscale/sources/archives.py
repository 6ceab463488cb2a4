"""Zip files: either one data file, or a folder of images or clips by class. Nothing is unpacked to disk."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from tlscale.errors import DataError
from tlscale.sources import images
from tlscale.sources.table import Table

# A member may unpack to this much more than it takes in the archive, and more than a gibibyte: a bomb.
_RATIO, _LARGE = 1000, 1 << 30


def from_zip(path: Path, data_file: Callable[[str, Callable[[], bytes]], Table | None]) -> Table:
    """The table in the zip file `path`.

    `data_file(name, content)` makes the table of a single member, or `None` when its name isn't one
    of a data file.

    Raises:
        DataError: no zip file, an unsafe member, or neither files by class nor exactly one data file in it.
    """
    members = _members(path)
    names = [member.filename for member in members]
    if any(images.is_sorted(name) for name in names):
        shared = _shared_folder(names)
        return images.from_names(names, lambda name: _read(path, name), path.name, shared)
    if len(names) == 1:
        table = data_file(names[0], lambda: _read(path, names[0]))
        if table is not None:
            return table
    raise DataError(
        f"{path}: a zip needs one data file or a folder of images or WAV files by class; in it: "
        f"{', '.join(names[:12]) or 'nothing'}{', ...' if len(names) > 12 else ''}"
    )


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is no zip file: {error}") from error
    for member in found:
        problem = _danger(member)
        if problem is not None:
            raise DataError(f"{path}: member {member.filename!r} {problem}")
    return [m for m in found if not m.is_dir() and not _hidden(m.filename)]


def _danger(member: zipfile.ZipInfo) -> str | None:
    """Why a member is refused, or `None`."""
    # ZipInfo.filename has its separators rewritten; the name as stored tells what was meant.
    name = member.orig_filename
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or "\\" in name:
        return "has an absolute or foreign path; only plain relative names are read"
    if ".." in PurePosixPath(name).parts:
        return "points outside of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link; only plain files are read"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.file_size > _LARGE and member.file_size > _RATIO * member.compress_size:
        return f"unpacks to {member.file_size:,} bytes from {member.compress_size:,}: not credible"
    return None


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _shared_folder(names: list[str]) -> str:
    """The one folder that wraps all class folders ("animals/cat/1.png"), with its slash, or ""."""
    tops = {PurePosixPath(name).parts[0] for name in names}
    deep = all(len(PurePosixPath(name).parts) > 2 for name in names if images.is_sorted(name))
    return f"{tops.pop()}/" if deep and len(tops) == 1 else ""


def _read(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: member {name!r} can't be read: {error}") from error
