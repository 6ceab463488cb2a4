"""A plan to load files from elsewhere by: the base that they name, and nothing to train."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlscale.errors import VerificationError
from tlscale.planning import device
from tlscale.planning.facts import read_facts
from tlscale.planning.headers import read_header
from tlscale.planning.seal import fingerprint
from tlscale.planning.types import Plan, World
from tlscale.publish import intake
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.record import write_text

TASKS = {
    "CAUSAL_LM": "causal-lm",
    "SEQ_CLS": "sequence-classification",
    "FEATURE_EXTRACTION": "sentence-embedding",
}
HEADS = (".score.weight", ".classifier.weight", ".classifier.out_proj.weight")


def plan_for(folder: Path) -> Plan:
    """The plan that loads what lies in `folder`, which `intake.check` has let in.

    Raises:
        VerificationError: the files don't say for what task or on which base they are.
        PlanError: the base can't be read.
    """
    manifest: dict[str, Any] = intake.read(folder / MANIFEST) or {}
    config: dict[str, Any] = intake.read(folder / "adapter_config.json") or {}
    task = manifest.get("task") or TASKS.get(str(config.get("task_type")))
    base = manifest.get("base") or config.get("base_model_name_or_path")
    revision = manifest.get("revision") or config.get("revision")
    whole = manifest.get("kind") == "checkpoint"
    if task is None or (base is None and not whole):
        raise VerificationError(
            f"{folder.name}: neither manifest.json nor adapter_config.json says for which task and base it "
            f"is; task_type is {config.get('task_type')!r}, known: {', '.join(TASKS)}"
        )
    labels = manifest.get("labels") or _labels(folder)
    model: dict[str, Any] = {"model_name_or_path": base, "revision": revision, "task": task}
    if whole:
        model = {"model_name_or_path": str(folder), "task": task}
    elif manifest.get("quantization", "none") != "none":
        model["quantization"] = manifest["quantization"]
    recipe = Recipe.model_validate_json(
        json.dumps({"version": 1, "name": "examined", "model": model, "strategy": {"kind": "none"}})
    )
    unsigned = Plan(
        fingerprint="",
        recipe=recipe,
        seed=0,
        facts=read_facts(recipe.model, labels=tuple(labels), offline=False),
        data=(),
        world=_world(manifest),
        stages=(),
        max_length=1,
        notes=(),
        versions={},
    )
    return unsigned.model_copy(update={"fingerprint": fingerprint(unsigned)})


def _world(manifest: Mapping[str, Any]) -> World:
    kind, memory = device.detect("auto")
    known = manifest.get("compute_dtype")
    dtype: Any = known if known is not None else "bfloat16" if kind == "cuda" else "float32"
    return World(device=kind, processes=1, dtype=dtype, memory_per_device=memory)


def _labels(folder: Path) -> list[str]:
    """Names for as many classes as a saved classifier has rows."""
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        return []
    for name, stored in read_header(weights).items():
        if name.endswith(HEADS):
            return [str(index) for index in range(stored.shape[0])]
    return []


def write_scratch(root: Path, plan: Plan) -> RunLayout:
    """A run directory for a worker that only looks."""
    layout = RunLayout(root)
    write_text(layout.plan, plan.model_dump_json(indent=1) + "\n")
    return layout
