"""Images or sound clips sorted into one folder per class, on disk or in a zip, as a table with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from tlscale.errors import DataError
from tlscale.sources import clips
from tlscale.sources.rows import Row
from tlscale.sources.table import Table

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_clip(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in clips.SUFFIXES


def is_sorted(name: str) -> bool:
    """Whether a file's name is one of those that are sorted by class."""
    return is_image(name) or is_clip(name)


def from_folder(folder: Path) -> Table:
    """The table of `folder/CLASS/FILE`; values are paths.

    Raises:
        DataError: see `from_names`.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return from_names(names, lambda name: folder / name, folder.name)


def from_names(
    names: Iterable[str], content: Callable[[str], Path | bytes], where: str, shared: str = ""
) -> Table:
    """The table of files called `CLASS/FILE` below the folder `shared`; `content` gives the value.

    All are images (column image) or all are clips (column audio).

    Raises:
        DataError: a file lies in no class folder or in a nested one, or a class folder holds something
            else.
    """
    names = list(names)
    column, fits = ("audio", is_clip) if any(map(is_clip, names)) else ("image", is_image)
    found: list[tuple[str, str]] = []
    for name in sorted(names):
        parts = PurePosixPath(name.removeprefix(shared)).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if len(parts) == 2 and fits(name):
            found.append((name, parts[0]))
        elif len(parts) > 1 or fits(name):
            raise DataError(f"{where}: {name}: {_misplaced(fits(name), column, len(parts))}")
    if not found:
        raise DataError(f"{where}: no images in class folders; CLASS/{column.upper()} is needed")

    def rows(columns: tuple[str, ...]) -> tuple[Row, ...]:
        wanted = column in columns
        return tuple(
            Row({column: content(name) if wanted else None, "label": label}, name) for name, label in found
        )

    return Table((column, "label"), rows, count=len(found))


def _misplaced(fits: bool, column: str, depth: int) -> str:
    if not fits and column == "audio":
        return "is no WAV file; class folders of them hold nothing else"
    if not fits:
        return f"is no image ({', '.join(sorted(SUFFIXES))}); class folders hold nothing else"
    if depth == 1:
        return f"lies in no class folder; CLASS/{column.upper()} is needed"
    return (
        f"lies too deep; CLASS/{column.upper()} is needed, so give the folder that holds the class folders"
    )
