"""Whether pictures are prepared as they were when the base was trained: its own files, and a recipe's word.

A base that gets pictures of another mean, spread or size gives other features, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tlscale.planning.cases import Case, Clash
from tlscale.planning.headers import read_json
from tlscale.planning.pictures import FACTOR, OWN, TIMM, Fields, changes, missing, own, shown, side, timm
from tlscale.planning.types import Facts
from tlscale.recipe.types import Recipe

KEY = "model.image_processor"
TASK = "image-classification"
COLOURS = 3
TOLERANCE = 0.01
BRIGHTEST = 255.0
# their position embeddings belong to a grid of patches, and transformers takes no other picture
FIXED_GRID = ("deit", "ijepa", "vit", "vit_msn")
COMPARED = ("size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
COST = "tlscale probe RECIPE --alignment prints what it costs"


CLASHES: tuple[Clash, ...] = (
    Clash(
        "data.augmentation",
        lambda c: c.recipe.data.augmentation is not None and c.recipe.model.task != TASK,
        "only pictures are cut, mirrored and coloured",
        f"leave it out, or set model.task to {TASK}",
    ),
    Clash(
        "data.augmentation",
        lambda c: c.recipe.data.augmentation is not None and _once(c),
        "the frozen backbone's features are computed once, so pictures can't vary from epoch to epoch",
        "leave it out, or use strategy kind: partial, full or peft",
    ),
)


def _once(case: Case) -> bool:
    """Whether a stage trains a head of ours over features that never change."""
    fixed = all(name.startswith("head.") for name in case.trained)
    return case.pooled and case.stage is not None and case.stage.adapter is None and fixed


class _Said:
    """What is said about pictures, by whom: the recipe, preprocessor_config.json, timm, config.json."""

    def __init__(self, recipe: Recipe, facts: Facts) -> None:
        folder = Path(facts.folder)
        file = folder / "config.json"
        self.where = facts.model
        self.given = recipe.model.image_processor
        self.config: Fields = {**(read_json(file) if file.is_file() else {}), **recipe.model.config}
        self.own, self.timm = own(folder), timm(self.config)
        self.base: Fields = self.own or self.timm
        self.file = OWN if self.own else TIMM
        self.set: Fields = {} if self.given is None else changes(self.given, self.base)
        self.all: Fields = {**self.base, **self.set}
        # of a model on the Hub, the cache may not have been asked
        none_there = folder.parent.parent / ".no_exist" / folder.name / OWN
        known = file.is_file() and (facts.commit is None or none_there.exists())
        self.has_nothing = known and not self.base

    @property
    def brightest(self) -> float:
        """What the brightest pixel becomes before it is normalized."""
        if not self.all.get("do_rescale", True):
            return BRIGHTEST
        return BRIGHTEST * float(self.all.get("rescale_factor") or FACTOR)

    @property
    def mean(self) -> list[float] | None:
        """The mean that is subtracted."""
        mean = self.all.get("image_mean")
        return mean if self.all.get("do_normalize", True) and isinstance(mean, list) else None

    def says(self, *names: str) -> str:
        """Who is to be corrected."""
        return next(
            (f"{KEY}.{name}" for name in names if name in self.set), f"{self.where}: its {self.file}"
        )


def refusals(recipe: Recipe, facts: Facts) -> list[str]:
    """What can't be meant, each with the fix."""
    if recipe.model.task != TASK:
        return [f"{KEY}: {recipe.model.task} has no pictures; leave it out"] * (
            recipe.model.image_processor is not None
        )
    return list(_refusals(_Said(recipe, facts), facts))


def _refusals(said: _Said, facts: Facts) -> Iterator[str]:
    lacks = missing(said.given)
    if said.has_nothing and lacks:
        listed = ", ".join(lacks)
        yield (
            f"{KEY}: {said.where} has no {OWN}, so nothing says how its pictures are prepared; give "
            f"{listed} as it was trained under, such as {{size: 224, image_mean: [0.485, 0.456, 0.406], "
            "image_std: [0.229, 0.224, 0.225]} for ImageNet's"
        )
    channels = said.config.get("num_channels", COLOURS)
    if channels != COLOURS:
        yield (
            f"model.model_name_or_path: {said.where} reads pictures of {channels} channels (num_channels), "
            f"and all are given {COLOURS}: red, green and blue; give a base for {COLOURS}"
        )
    size, trained = side(said.all), _trained_at(said)
    if facts.architecture.model_type in FIXED_GRID and size and trained and size != trained:
        yield (
            f"{said.says('size', 'crop_size')}: pictures of {_by(size)} pixels, and a "
            f"{facts.architecture.model_type} takes {_by(trained)} alone (image_size of its config.json); "
            f"set {KEY}.size={trained[0]}"
        )
    if said.mean is None:
        return
    if len(said.mean) != COLOURS:
        yield (
            f"{said.says('image_mean')}: image_mean has {len(said.mean)} numbers, and pictures have "
            f"{COLOURS} colours; set {KEY}.image_mean and image_std to {COLOURS} numbers each"
        )
    elif max(said.mean) > said.brightest and said.set:
        yield f"{said.says('image_mean', 'rescale_factor', 'do_rescale')}: {_outside(said)}"


def notes(recipe: Recipe, facts: Facts) -> list[str]:
    """What works and may cost accuracy, each with the fix."""
    if recipe.model.task != TASK:
        return []
    said = _Said(recipe, facts)
    return [*_against_recipe(said), *_against_itself(said), *_sizes(said, facts), *_ranges(said)]


def _against_recipe(said: _Said) -> Iterator[str]:
    """Where the recipe says otherwise than the base's files."""
    for name in COMPARED:
        before = side(said.base) if name == "size" else said.base.get(name)
        now = side(said.all) if name == "size" else said.set.get(name)
        if before is not None and now is not None and _differ(before, now):
            yield (
                f"{KEY}.{name}: {_told(name, now)}, and the base was trained under {_told(name, before)} "
                f"(its {said.file}); leave it out unless that file is wrong: {COST}"
            )


def _against_itself(said: _Said) -> Iterator[str]:
    """Where two of the base's own files disagree."""
    if not (said.own and said.timm):
        return
    for name in ("size", "image_mean", "image_std"):
        one, other = (side(f) if name == "size" else f.get(name) for f in (said.own, said.timm))
        if name not in said.set and one is not None and other is not None and _differ(one, other):
            yield (
                f"{said.where}: its {OWN} says {name} {_told(name, one)}, its {TIMM} {_told(name, other)}; "
                f"set {KEY}.{name} to what it was trained under: {COST}"
            )


def _sizes(said: _Said, facts: Facts) -> Iterator[str]:
    size, trained = side(said.all), _trained_at(said)
    if facts.architecture.model_type not in FIXED_GRID and size and trained and size != trained:
        who = said.says("size", "crop_size")
        yield (
            f"{who}: pictures of {_by(size)} pixels, and the base was trained on {_by(trained)} "
            f"(image_size of its config.json); set {KEY}.size={trained[0]}: {COST}"
        )
    whole = side({**said.all, "do_center_crop": False})
    if size and whole and (size[0] > whole[0] or size[1] > whole[1]):
        yield (
            f"{said.says('crop_size', 'size')}: crop_size {_by(size)} is more than the picture's "
            f"{_by(whole)}, so it gets a black border; set {KEY}.size={size[0]}"
        )


def _ranges(said: _Said) -> Iterator[str]:
    """Where a mean is there and not used, or is of another range than the pixels."""
    mean = said.base.get("image_mean")
    unused = "do_normalize" not in said.set and said.base.get("do_normalize") is False
    if unused and isinstance(mean, list) and any(mean):
        yield (
            f"{said.where}: its {said.file} has image_mean {shown(mean)} and do_normalize false, so it "
            f"isn't subtracted; if the base was trained under it, set {KEY}.do_normalize=true: {COST}"
        )
    if said.mean is None or len(said.mean) != COLOURS or said.all.get("rescale_offset"):
        return
    if max(said.mean) > said.brightest and not said.set:
        yield f"{said.says('image_mean')}: {_outside(said)}"
    if 0 < max(said.mean) <= 1 and said.brightest > 2:
        who = said.says("do_rescale", "rescale_factor", "image_mean")
        yield (
            f"{who}: image_mean {shown(said.mean)} is of pixels from 0 to 1, and they are 0 to "
            f"{shown(said.brightest)}; set {KEY}.do_rescale=true and "
            "rescale_factor=0.00392157 (1/255), or a mean of that range"
        )


def _outside(said: _Said) -> str:
    assert said.mean is not None
    scaled = ", ".join(f"{one / BRIGHTEST:.3g}" for one in said.mean)
    return (
        f"image_mean {shown(said.mean)} is outside of what pixels are once they are rescaled, 0 to "
        f"{shown(said.brightest)}; set {KEY}.image_mean=[{scaled}] and divide image_std by 255 too, or set "
        f"{KEY}.do_rescale=false"
    )


def _trained_at(said: _Said) -> tuple[int, int] | None:
    return side({"size": said.config.get("image_size")})


def _differ(one: object, other: object) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is not other
    left, right = (list(v) if isinstance(v, (list, tuple)) else [v] for v in (one, other))
    if len(left) != len(right):
        return True
    pairs = [(float(a), float(b)) for a, b in zip(left, right, strict=True)]
    return any(abs(a - b) > TOLERANCE * max(abs(a), abs(b), FACTOR) for a, b in pairs)


def _told(name: str, value: object) -> str:
    return _by(value) if name == "size" and isinstance(value, tuple) else shown(value)


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
