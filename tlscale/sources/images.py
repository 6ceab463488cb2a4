"""Images sorted into one folder per class, on disk or in a zip, as a table of image and label."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from tlscale.errors import DataError
from tlscale.sources.rows import Row
from tlscale.sources.table import Table

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))


def is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def from_folder(folder: Path) -> Table:
    """The table of `folder/CLASS/IMAGE`; image values are paths.

    Raises:
        DataError: see `from_names`.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return from_names(names, lambda name: folder / name, folder.name)


def from_names(
    names: Iterable[str], image: Callable[[str], Path | bytes], where: str, shared: str = ""
) -> Table:
    """The table of images called `CLASS/IMAGE` below the folder `shared`; `image` gives the value.

    Raises:
        DataError: an image lies in no class folder or in a nested one, or a class folder holds
            something that is no image.
    """
    found: list[tuple[str, str]] = []
    for name in sorted(names):
        parts = PurePosixPath(name.removeprefix(shared)).parts
        if any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        if len(parts) == 2 and is_image(name):
            found.append((name, parts[0]))
        elif len(parts) > 1 or is_image(name):
            raise DataError(f"{where}: {name}: {_misplaced(name, len(parts))}")
    if not found:
        raise DataError(f"{where}: no images in class folders; CLASS/IMAGE is needed")

    def rows(columns: tuple[str, ...]) -> tuple[Row, ...]:
        with_image = "image" in columns
        return tuple(
            Row({"image": image(name) if with_image else None, "label": label}, name)
            for name, label in found
        )

    return Table(("image", "label"), rows, count=len(found))


def _misplaced(name: str, depth: int) -> str:
    if not is_image(name):
        return f"is no image ({', '.join(sorted(SUFFIXES))}); class folders hold nothing else"
    if depth == 1:
        return "lies in no class folder; CLASS/IMAGE is needed"
    return "lies too deep; CLASS/IMAGE is needed, so give the folder that holds the class folders"
