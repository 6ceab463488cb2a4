"""Another base in place of a recipe's own: `NAME` or `NAME@REVISION`."""

from __future__ import annotations

from typing import Any

from tlscale.recipe.types import Model


def candidate(model: Model, name: str) -> Model:
    """`model` with the base `name`; the recipe's own name keeps its revision and its settings."""
    if name == model.model_name_or_path:
        return model
    base, _, revision = name.rpartition("@") if "@" in name else (name, "", "")
    changes: dict[str, Any] = {
        "model_name_or_path": base, "revision": revision or None, "config": {}, "chat_template": None,
        "trust_remote_code": False, "image_processor": None,
    }  # fmt: skip
    return model.model_copy(update=changes)
