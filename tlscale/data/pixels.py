"""Images from paths, bytes or arrays to the pixel tensors that a model's image processor makes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from tlscale.data.labelled import class_index
from tlscale.data.types import Example, Made
from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import Columns, Row, resolve, value
from tlscale.sources.rows import describe

# Pillow clips these to 8 bits instead of scaling them.
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def images(
    rows: Sequence[Row],
    source: Source,
    columns: Columns,
    processor: Any,
    labels: tuple[str, ...],
    *,
    keep: bool = False,
) -> list[Made]:
    """Images with class indices; `pixels` is float32 [3, H, W] as `processor` resizes and scales it.

    Args:
        keep: Whether examples have the `picture` beside it.

    Raises:
        DataError: an image that can't be decoded, or an unknown label.
    """
    made = []
    for row in rows:
        index, name = class_index(row, columns, labels)
        picture = decode(row, value(row, columns.by_role["image"]), folder_of(source))
        one = Example(
            where=row.where,
            text=row.where,
            reference=name,
            label=index,
            pixels=pixels_of(picture, processor),
            picture=picture if keep else None,
        )
        made.append(Made((one,)))
    return made


def pixels_of(picture: Image.Image, processor: Any) -> torch.Tensor:
    """Float32 [3, H, W] of an RGB image."""
    return _thin(processor(images=picture, return_tensors="pt")["pixel_values"][0].float())


def decode(row: Row, found: Any, folder: Path | None) -> Image.Image:
    """An RGB image from a path relative to `folder`, encoded bytes, or an array.

    Arrays are uint8, [H, W], [H, W, 1] or [H, W, 3].

    Raises:
        DataError: it is none of these, or broken.
    """
    if isinstance(found, dict) and found.get("bytes"):
        found = found["bytes"]
    try:
        if isinstance(found, Image.Image):
            picture = found
        elif isinstance(found, Path):
            picture = Image.open(found)
        elif isinstance(found, str):
            picture = Image.open(confined(row, Path(found), folder, "image"))
        elif isinstance(found, bytes):
            picture = Image.open(io.BytesIO(found))
        else:
            picture = _from_array(row, found)
        if picture.mode in _DEEP_MODES:
            raise DataError(f"{row.where}: image mode {picture.mode} has more than 8 bits per channel")
        return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{row.where}: can't be decoded as an image: {error}") from error


def _from_array(row: Row, found: Any) -> Image.Image:
    shape: tuple[int, ...] = getattr(found, "shape", ())
    if len(shape) == 3 and shape[2] == 1:
        found, shape = found[:, :, 0], shape[:2]
    if str(getattr(found, "dtype", "")) != "uint8" or not (len(shape) == 2 or shape[2:] == (3,)):
        dtype = f" of {found.dtype}" if hasattr(found, "dtype") else ""
        raise DataError(
            f"{row.where}: image is {describe(found)}{dtype}; a path, encoded bytes, or a uint8 array "
            "[H, W], [H, W, 1] or [H, W, 3] is needed"
        )
    return Image.fromarray(found)


def folder_of(source: Source) -> Path | None:
    """The folder that paths inside a data file are relative to."""
    return None if source.path is None else resolve(source.path).resolve().parent


def confined(row: Row, path: Path, folder: Path | None, what: str) -> Path:
    """A path from a data file, which may name nothing outside of that file's folder.

    Raises:
        DataError: it does, or there is no folder.
    """
    if folder is None:
        raise DataError(f"{row.where}: {what} is a path, {path}; a Hub data set has no folder for it")
    full = (folder / path).resolve() if not path.is_absolute() else path.resolve()
    if not full.is_relative_to(folder):
        raise DataError(f"{row.where}: {what} path {path} leaves the folder of the data file")
    return full


def _thin(pixels: torch.Tensor) -> torch.Tensor:
    """The same values; a grey image with equal channels keeps one of them in memory, not three."""
    if torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2]):
        return pixels[:1].clone().expand_as(pixels)
    return pixels
