"""Faults of images: files that can't be decoded, arrays of the wrong kind, pictures of nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlscale.sources.doctor.finding import Finding, Kind, tally
from tlscale.sources.doctor.part import Part
from tlscale.sources.paths import resolve
from tlscale.sources.rows import describe

Hits = Iterator[tuple[Kind, str]]

# Decoding is slow: beyond so many pixels only headers are read, beyond so many files none.
_PIXELS, _FILES = 40_000_000, 5_000
_FIX = "replace the file or remove it"


def check(part: Part) -> list[Finding]:
    """All findings on the images of `part`; of many files, evenly spaced ones are opened."""
    step = max(1, -(-len(part.rows) // _FILES))
    looked = list(zip(part.values, part.rows, strict=True))[::step]
    left = _PIXELS
    hits: list[tuple[Kind, str]] = []
    for one, row in looked:
        if "image" not in one:
            continue
        faults, pixels = _image(one["image"], part, decode=left > 0)
        left -= pixels
        hits += [(kind, row.where) for kind in faults]
    return tally(part.role, hits, len(looked))


def content(found: Any) -> bytes | None:
    """What tells whether two images are the same, or `None` where that would be slow to say."""
    if isinstance(found, Path):
        return found.read_bytes() if found.is_file() and found.stat().st_size < 1 << 20 else None
    if isinstance(found, dict):
        found = found.get("bytes")
    if isinstance(found, bytes):
        return found
    return bytes(found.tobytes()) if hasattr(found, "tobytes") else None


def _image(found: Any, part: Part, *, decode: bool) -> tuple[list[Kind], int]:
    """What is wrong with one image, and how many pixels were decoded to tell."""
    if isinstance(found, dict) and found.get("bytes"):
        found = found["bytes"]
    if isinstance(found, str):
        folder = resolve(part.source.path or ".").resolve().parent
        found = (folder / found).resolve()
        if not found.is_relative_to(folder):
            return [Kind("error", "image", "the image's path leaves the folder of the data file", _FIX)], 0
    if isinstance(found, Path):
        if not found.is_file():
            return [Kind("error", "image", "the image file isn't there", "correct the path")], 0
        if not found.stat().st_size:
            return [Kind("error", "image", "the image file is empty", _FIX)], 0
    if isinstance(found, (Path, bytes)):
        return _encoded(found, decode=decode)
    return _array(found), 0


def _encoded(found: Path | bytes, *, decode: bool) -> tuple[list[Kind], int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(found) if isinstance(found, bytes) else found) as picture:
            if not decode:
                return [], 0
            flat = picture.convert("RGB").getcolors(maxcolors=1) is not None
            pixels = picture.width * picture.height
    except UnidentifiedImageError:
        return [Kind("error", "image", "no image that Pillow knows", _FIX)], 0
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return [Kind("error", "image", f"the image can't be decoded ({error})", _FIX)], 0
    if flat and pixels > 1:
        return [_flat()], pixels
    return [], pixels


def _flat() -> Kind:
    return Kind("warning", "flat-image", "all pixels have one colour", "look at these; drop them if broken")


def _array(found: Any) -> list[Kind]:
    shape: tuple[int, ...] = getattr(found, "shape", ())
    grey, dtype = len(shape) == 2 or shape[2:] in ((1,), (3,)), str(getattr(found, "dtype", ""))
    if dtype.startswith("float") and not bool((found == found).all()):
        return [Kind("error", "nan", "the image has NaN in it", "export the pixels as uint8")]
    if dtype != "uint8" or not grey or not all(shape):
        told = f"{describe(found)}{f' of {dtype}' if dtype else ''}"
        fix = "a path, encoded bytes or a uint8 array [H, W], [H, W, 1] or [H, W, 3] is needed"
        return [Kind("error", "image", f"the image is {told}", fix)]
    return [_flat()] if found.min() == found.max() and found.size > 1 else []
