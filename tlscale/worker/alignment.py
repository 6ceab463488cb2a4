"""What it costs to prepare pictures otherwise than a base was trained under, by its frozen features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlscale.planning.headers import read_json
from tlscale.planning.image_checks import COLOURS, FIXED_GRID, TASK
from tlscale.planning.pictures import Fields, changes, own, shown, side, timm
from tlscale.planning.types import Plan
from tlscale.probes.arrays import Floats, Hits, Ints
from tlscale.probes.transferability import linear_hits, neighbour_hits
from tlscale.recipe.base import Frozen
from tlscale.recipe.pictures import ImageProcessor

Look = Callable[[ImageProcessor | None], tuple[Floats, Ints]]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NEAR = 0.05
NORMAL = 1.96
OWN_FILES, RECIPE = "as the base's own files say", "as the recipe says"
NOTE = """\
knn and linear are leave-one-out accuracies over the same rows; changes are in points against the first
line, with 95 % intervals."""


class Change(Frozen):
    """A difference of accuracies in points, and its 95 % interval over rows."""

    points: float
    low: float
    high: float


class Preparation(Frozen):
    """One way to prepare pictures, and how well frozen features tell classes apart then.

    `fields` is what it sets over the base's own files. The first of several has no changes.
    """

    name: str
    fields: dict[str, Any]
    rows: int
    linear: float
    knn: float
    linear_change: Change | None
    knn_change: Change | None


def compared(plan: Plan, look: Look, *, wide: bool) -> tuple[Preparation, ...]:
    """The base's own way, the recipe's where it has one, and with `wide` the usual mistakes.

    Nothing where there is only one way.

    Args:
        look: From what a recipe may say of pictures to features [rows, dimensions] and labels.
    """
    if plan.recipe.model.task != TASK:
        return ()
    ways = list(_ways(plan, wide=wide))
    if len(ways) < 2:
        return ()
    made: list[Preparation] = []
    first: tuple[Hits, Hits] | None = None
    for name, given in ways:
        features, labels = look(given)
        linear, knn = linear_hits(features, labels), neighbour_hits(features, labels)
        made.append(
            Preparation(
                name=name,
                fields={} if given is None else given.model_dump(exclude_none=True, mode="json"),
                rows=len(labels),
                linear=float(linear.mean()),
                knn=float(knn.mean()),
                linear_change=None if first is None else _change(first[0], linear),
                knn_change=None if first is None else _change(first[1], knn),
            )
        )
        first = first or (linear, knn)
    return tuple(made)


def _ways(plan: Plan, *, wide: bool) -> Iterator[tuple[str, ImageProcessor | None]]:
    folder = Path(plan.facts.folder)
    file = folder / "config.json"
    base = own(folder) or timm(read_json(file) if file.is_file() else {})
    given = plan.recipe.model.image_processor
    start: ImageProcessor | None = None
    if own(folder):
        yield OWN_FILES, None
    elif given is not None:
        start = given
    if given is not None:
        yield RECIPE, given
    if wide:
        fields = {**base, **({} if start is None else changes(start, base))}
        for name, changed in _mistakes(fields, plan.facts.architecture.model_type):
            kept = {} if start is None else start.model_dump(exclude_none=True)
            useless = {"image_mean", "image_std"} if "do_normalize" in changed else set()
            useless |= {"rescale_factor"} if "do_rescale" in changed else set()
            kept = {key: kept[key] for key in kept if key not in useless}
            yield name, ImageProcessor(**{**kept, **changed})


def _mistakes(fields: Fields, model_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Other ways to prepare pictures that are often met, as long as they differ from `fields`."""
    said = (fields.get("image_mean"), fields.get("image_std"))
    numbers = [number for one in said if isinstance(one, list) for number in one]
    normalizes = fields.get("do_normalize", True) and len(numbers) == 2 * COLOURS
    for name, (other, spread) in (("ImageNet's", IMAGENET), ("of 0.5", HALVES)):
        if normalizes and np.abs(np.subtract(numbers, [*other, *spread])).max() < NEAR:
            continue
        yield (
            f"mean and std {name}",
            {"do_normalize": True, "image_mean": other, "image_std": spread},
        )
    if normalizes:
        yield "not normalized", {"do_normalize": False}
    if fields.get("do_rescale", True):
        yield "not rescaled, 0 to 255", {"do_rescale": False}
    size = side(fields)
    if size is not None and min(size) >= 2 and model_type not in FIXED_GRID:
        yield f"half the size, {size[0] // 2} pixels", {"size": size[0] // 2}


def _change(before: Hits, after: Hits) -> Change:
    """Of paired rows, by the normal distribution."""
    differences = 100.0 * (after.astype(np.float64) - before)
    mean = float(differences.mean())
    spread = NORMAL * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return Change(points=mean, low=mean - spread, high=mean + spread)


def lines(prepared: Sequence[Preparation]) -> list[str]:
    """A table as plain text; nothing of nothing."""
    if not prepared:
        return []
    width = max(len("pictures prepared"), *(len(one.name) for one in prepared))
    head = f"\n{'pictures prepared':<{width}} {'linear':>8} {'change':>22} {'knn':>8} {'change':>22}"
    made = [f"{head}   {prepared[0].rows:,} rows"]
    for one in prepared:
        made.append(
            f"{one.name:<{width}} {one.linear:>8.1%} {_told(one.linear_change):>22} "
            f"{one.knn:>8.1%} {_told(one.knn_change):>22}"
        )
    said = [one for one in prepared if one.name == RECIPE and one.fields]
    for one in said:
        listed = ", ".join(f"{name} {shown(value)}" for name, value in one.fields.items())
        made.append(f"{RECIPE}: {listed}")
    return [*made, NOTE]


def _told(change: Change | None) -> str:
    if change is None:
        return "-"
    return f"{change.points:+.1f} [{change.low:+.1f}, {change.high:+.1f}]"
