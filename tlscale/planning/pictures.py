"""How pictures are prepared for a base: what its own files say, and what a recipe says in their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlscale.planning.headers import read_json
from tlscale.recipe.pictures import ImageProcessor

OWN = "preprocessor_config.json"
TIMM = "config.json (pretrained_cfg)"
FACTOR = 1 / 255
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
NEEDED = ("size", "image_mean", "image_std")
Fields = Mapping[str, Any]


def own(folder: Path) -> Fields:
    """The fields of preprocessor_config.json; nothing where there is none.

    Raises:
        PlanError: it isn't JSON.
    """
    return read_json(folder / OWN) if (folder / OWN).is_file() else {}


def timm(config: Fields) -> Fields:
    """The same fields from what timm writes into a config: mean, std and input_size [C, H, W]."""
    said = config.get("pretrained_cfg")
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {}
    for name, ours in (("mean", "image_mean"), ("std", "image_std")):
        if isinstance(said.get(name), list):
            found[ours] = said[name]
    size = said.get("input_size")
    if isinstance(size, list) and len(size) == 3:
        found["size"] = {"height": size[1], "width": size[2]}
    if said.get("interpolation") in RESAMPLE:
        found["resample"] = RESAMPLE[said["interpolation"]]
    return found


def changes(given: ImageProcessor, base: Fields) -> dict[str, Any]:
    """The fields that a recipe sets over those of `base`, sizes spelled out as transformers has them.

    A whole number for `size` is the side of what the model gets, so a centre crop follows it.
    """
    made: dict[str, Any] = given.model_dump(exclude_none=True)
    made |= {name: list(made[name]) for name in ("image_mean", "image_std") if name in made}
    crops = made.get("do_center_crop", base.get("do_center_crop", False))
    side = made.get("size")
    if isinstance(side, int):
        before = base.get("size")
        by_edge = isinstance(before, dict) and "shortest_edge" in before
        made["size"] = {"shortest_edge": side} if by_edge else _square(side)
        if crops:
            made.setdefault("crop_size", side)
    if isinstance(made.get("crop_size"), int):
        made["crop_size"] = _square(made["crop_size"])
    return made


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def missing(given: ImageProcessor | None) -> tuple[str, ...]:
    """What a recipe must say besides, for a base that comes with nothing."""
    if given is None:
        return NEEDED
    wanted = NEEDED[:1] if given.do_normalize is False else NEEDED
    return tuple(name for name in wanted if getattr(given, name) is None)


def side(fields: Fields) -> tuple[int, int] | None:
    """Height and width of what the model gets from square pictures; `None` where it isn't said."""
    cut = fields.get("crop_size") if fields.get("do_center_crop") else None
    return _sides(cut) or (_sides(fields.get("size")) if fields.get("do_resize", True) else None)


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    if not isinstance(size, dict):
        return None
    if "height" in size and "width" in size:
        return int(size["height"]), int(size["width"])
    edge = size.get("shortest_edge")
    return (edge, edge) if isinstance(edge, int) else None


def shown(value: Any) -> str:
    """A field's value as a sentence has it."""
    if isinstance(value, (list, tuple)):
        return ", ".join(f"{one:.4g}" if isinstance(one, (int, float)) else str(one) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
