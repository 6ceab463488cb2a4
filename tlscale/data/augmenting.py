"""Pictures that vary from epoch to epoch: cut out, mirrored, and of other brightness and colour."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

from PIL import Image, ImageEnhance, ImageOps

from tlscale.data.pixels import pixels_of
from tlscale.data.types import Example
from tlscale.data.varying import Vary
from tlscale.recipe.pictures import Augmentation

# width to height of what is cut out, and how often it is tried: as in torchvision's RandomResizedCrop
RATIOS = (3 / 4, 4 / 3)
TRIES = 10
JITTERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def augmenting(processor: Any, asked: Augmentation, name: str) -> Vary:
    """The function that changes pictures, drawn by `name`, the epoch and the example's number.

    Pictures keep their size, so that `processor` does with them what it does with all others. Examples
    without a picture stay as they are.
    """

    def vary(example: Example, epoch: int, number: int) -> Example:
        if example.picture is None:
            return example
        draw = random.Random(f"{name}: what becomes of picture {number} in epoch {epoch}")
        picture = augmented(example.picture, asked, draw)
        return replace(example, pixels=pixels_of(picture, processor))

    return vary


def augmented(picture: Image.Image, asked: Augmentation, draw: random.Random) -> Image.Image:
    """One draw of `asked`: a new RGB picture of the same size."""
    if asked.random_resized_crop is not None:
        box = crop(picture.size, asked.random_resized_crop, draw)
        picture = picture.resize(picture.size, Image.Resampling.BILINEAR, box=box)
    if draw.random() < asked.horizontal_flip:
        picture = ImageOps.mirror(picture)
    if asked.color_jitter:
        for jitter in JITTERS:
            picture = jitter(picture).enhance(draw.uniform(1 - asked.color_jitter, 1 + asked.color_jitter))
    return picture


def crop(
    size: tuple[int, int], shares: tuple[float, float], draw: random.Random
) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom) with a share of the area, of a shape near the square.

    Szegedy et al. 2015 (arXiv:1409.4842), section 6. All of the picture where none fits.
    """
    width, height = size
    for _ in range(TRIES):
        area = width * height * draw.uniform(*shares)
        ratio = math.exp(draw.uniform(*map(math.log, RATIOS)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = draw.randint(0, width - wide), draw.randint(0, height - high)
            return left, top, left + wide, top + high
    return 0, 0, width, height
