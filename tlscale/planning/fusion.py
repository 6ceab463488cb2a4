"""Trained adapters that a new task learns to combine: where they lie, and whether they fit together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlscale.errors import PlanError
from tlscale.planning.targets import LORA, chosen_modules
from tlscale.planning.types import Facts
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.sources.paths import resolve

FUSION = "FUSION"
CONFIG = "adapter_config.json"


def source_folder(given: str) -> Path:
    """Where the adapter of a run directory, or of a folder of its own, lies."""
    path = resolve(given)
    inside = RunLayout(path).adapter
    return inside if (inside / CONFIG).is_file() else path


def attention_size(fields: Mapping[str, Any], facts: Facts) -> int:
    """How many weights the attention over the adapters in `fields` has.

    A query and a key in each layer that several of them change.

    Raises:
        PlanError: an adapter isn't there, isn't plain LoRA, or belongs to another base.
    """
    size: int = fields["size"]
    given: Sequence[str] = fields["adapters"]
    default = LORA.get(facts.architecture.model_type)
    found = [m for one in given for m in chosen_modules(_config(one, facts), facts, default)]
    times = Counter(module.name for module in found)
    # what one adapter alone changes needs no attention
    layers = {m.name: m.inputs + 1 + m.outputs for m in found if times[m.name] > 1}
    return size * sum(layers.values())


def _config(given: str, facts: Facts) -> dict[str, Any]:
    folder = source_folder(given)
    where = f"strategy.adapters: {given}"
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{where}: no adapter that tlscale saved: {error}; give the directory of a finished run with "
            "strategy kind: peft and method: lora"
        ) from error
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("bias", "none") != "none":
        raise PlanError(
            f"{where}: only plain LoRA adapters are combined; this is {config.get('peft_type')}"
        )
    if config.get("modules_to_save"):
        raise PlanError(f"{where}: it holds whole modules too; train it with head: pooled")
    if (manifest.get("base"), manifest.get("revision")) != (facts.model, facts.commit):
        raise PlanError(
            f"{where}: it was trained on {manifest.get('base')} @ {manifest.get('revision')}, and this "
            f"recipe's base is {facts.model} @ {facts.commit}; give adapters of one base"
        )
    return config
