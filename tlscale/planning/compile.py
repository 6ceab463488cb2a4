"""From a recipe to its one immutable plan."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tlscale import __version__, plugins
from tlscale.errors import PlanError
from tlscale.planning import adapters, batch, checks, device, memory, sharding
from tlscale.planning.carrying import carried
from tlscale.planning.facts import read_facts
from tlscale.planning.item import MemoryItem
from tlscale.planning.rules import decide
from tlscale.planning.seal import fingerprint, foreign
from tlscale.planning.strategy import Context
from tlscale.planning.types import (
    Batch,
    DataFacts,
    Facts,
    Head,
    Plan,
    PlannedStage,
    Stage,
    Tensor,
    World,
)
from tlscale.recipe.carry import AskedCarry
from tlscale.recipe.load import strategy_options
from tlscale.recipe.masking import Masking
from tlscale.recipe.train import Train
from tlscale.recipe.types import CLASSIFICATION, Recipe, Source
from tlscale.sources import place, survey

LONGEST_BY_DEFAULT = 1024
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
)


def compile_plan(recipe: Recipe, *, seed: int | None = None, offline: bool = False) -> Plan:
    """The plan of `recipe` for one seed. Reads file headers and local data, no weights, no torch.

    Raises:
        PlanError: the model can't be read, or parts of the recipe don't go together.
    """
    data, labels = _survey(recipe)
    facts = read_facts(recipe.model, labels=labels, offline=offline)
    length = _max_length(recipe, facts)
    stages = _stages(recipe, facts)
    rows = next((d.rows for d in data if d.role == "train"), None)
    # documents become windows, and packed examples share rows: how many is known when they are tokens
    uncounted = recipe.data.packing or next((d.format for d in data if d.role == "train"), None) == "text"

    def planned_in(world: World) -> tuple[PlannedStage, ...]:
        return tuple(
            _plan_stage(stage, recipe, facts, world, length, None if uncounted or stage.source else rows)
            for stage in stages
        )

    world, why = sharding.choose(
        recipe.hardware.sharding,
        world_of(recipe),
        lambda world: max((needed(p) for p in planned_in(world)), default=0),
        lambda world: bool(checks.clashes(recipe, facts, stages, world)),
    )
    notes = (*((why,) if why else ()), *checks.check(recipe, facts, stages, world))
    unsigned = Plan(
        fingerprint="",
        recipe=recipe,
        seed=recipe.seed if seed is None else seed,
        facts=facts,
        data=data,
        world=world,
        stages=planned_in(world),
        max_length=length,
        notes=notes,
        versions={},
    )
    return unsigned.model_copy(update={"fingerprint": fingerprint(unsigned)})


def read_plan(path: Path) -> Plan:
    """The plan in a run directory.

    Raises:
        PlanError: it is not there, not a plan, was changed after it was written, or is another version's.
    """
    if not path.is_file():
        raise PlanError(f"{path.parent}: not a run directory (it has no {path.name})")
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        plan = Plan.model_validate_json(text)
    except ValueError as error:
        unread = f"not a plan of this version of tlscale: {error}"
        raise PlanError(f"{path}: {foreign(text) or unread}") from error
    if plan.fingerprint != fingerprint(plan):
        changed = "changed after it was written; plans are immutable, make a new run"
        raise PlanError(f"{path}: {foreign(text) or changed}")
    return plan


def _survey(recipe: Recipe) -> tuple[tuple[DataFacts, ...], tuple[str, ...]]:
    needs_labels = recipe.model.task in CLASSIFICATION
    labels: tuple[str, ...] = recipe.data.labels or ()
    found = []
    for role in ("train", "validation", "test", "retention", "replay", "unlabelled"):
        source: Source | None = getattr(recipe.data, role)
        if source is None:
            continue
        learns = needs_labels and not labels and role in ("train", "test")
        seen = survey(source, need_labels=learns)
        if learns and seen.labels:
            labels = seen.labels
        found.append(
            DataFacts(
                role=role,
                where=source.path or source.hub or place(source),
                rows=seen.rows,
                format=seen.format,
            )
        )
    if needs_labels and not labels:
        raise PlanError(
            "data.labels: the class names can't be read before the run (only local files are looked at); "
            "list them as data.labels: [...]"
        )
    return tuple(found), labels


def world_of(recipe: Recipe) -> World:
    """The processes that a recipe asks for, on the device that is here."""
    kind, available = device.detect(recipe.hardware.device)
    asked = recipe.hardware.memory_per_device
    wanted = recipe.model.dtype
    if wanted == "auto":
        wanted = "bfloat16" if kind == "cuda" else "float32"
    return World(
        device=kind,
        processes=recipe.hardware.processes,
        machines=recipe.hardware.machines,
        offload=recipe.hardware.offload,
        dtype=wanted,
        memory_per_device=int(asked * 1e9) if asked is not None else available,
    )


def _max_length(recipe: Recipe, facts: Facts) -> int:
    if recipe.data.max_length is not None:
        return recipe.data.max_length
    return min(facts.architecture.max_length or LONGEST_BY_DEFAULT, LONGEST_BY_DEFAULT)


def _stages(recipe: Recipe, facts: Facts) -> tuple[Stage, ...]:
    if recipe.strategy is not None:
        return carried(_compiled(recipe.strategy, Context(recipe, recipe.train, facts)), {})
    stages: list[Stage] = []
    asked: dict[str, AskedCarry] = {}
    previous = "base"
    for written in recipe.stages:
        merged = {**recipe.train.model_dump(mode="json", exclude_unset=True), **written.train}
        train = Train.model_validate_json(json.dumps(merged))
        made = _compiled(written.strategy, Context(recipe, train, facts))
        last = written.starts_from or previous
        for index, stage in enumerate(made):
            name = written.name if len(made) == 1 else f"{written.name}-{index + 1}"
            start = last if index == 0 else stages[-1].name
            known = {"name": name, "starts_from": start, "source": written.data}
            stages.append(stage.model_copy(update=known))
            asked[name] = written.carry if index == 0 else "auto"
        previous = stages[-1].name if made else last
    return carried(stages, asked)


def _compiled(written: Mapping[str, Any], context: Context) -> tuple[Stage, ...]:
    strategy = plugins.load("tlscale.strategies", str(written["kind"]))
    made: tuple[Stage, ...] = strategy.compile(strategy_options(written), context)
    return made


def pooled_head(head: Head, features: int, labels: int) -> tuple[Tensor, ...]:
    """The tensors of a pooled head over `features` numbers, for `labels` classes."""
    made = []
    width = features
    if head.hidden:
        made += [("head.hidden.weight", (head.hidden, width)), ("head.hidden.bias", (head.hidden,))]
        width = head.hidden
    made += [("head.output.weight", (labels, width)), ("head.output.bias", (labels,))]
    return tuple(Tensor(name=name, shape=shape, dtype="F32") for name, shape in made)


def _plan_stage(
    stage: Stage, recipe: Recipe, facts: Facts, world: World, length: int, rows: int | None
) -> PlannedStage:
    tensors = facts.tensors
    if stage.head.kind == "pooled":
        backbone = tuple(t for t in tensors if not t.name.startswith("head."))
        tensors = backbone + pooled_head(stage.head, facts.architecture.hidden_size, len(facts.labels))
    decisions = decide(tensors, stage.rules)
    trainable = sum(d.size for d in decisions if d.lr_scale is not None)
    total, exact = sum(d.size for d in decisions), facts.origin == "safetensors"
    if stage.adapter is not None:
        wrapped = _without_head_and_pooler(facts) if stage.head.kind == "pooled" else facts
        added, known = adapters.adapter_size(stage.adapter, wrapped)
        added *= max(1, len(stage.tasks.adapter_names)) if stage.tasks is not None else 1
        trainable, total, exact = trainable + added, total + added, exact and known

    def account(micro: int) -> tuple[MemoryItem, ...]:
        one = Batch(micro=micro, accumulation=1, world=world.processes)
        hidden = (recipe.data.masking or Masking()).rate
        return memory.account(facts, stage, one, world, length, recipe.model, trainable, hidden=hidden)

    def fits(micro: int) -> bool:
        room = world.memory_per_device
        return room is None or sum(item.bytes for item in account(micro)) <= room

    chosen = batch.choose(stage.batch, world.processes, fits)
    steps = stage.budget.max_steps
    if steps is None and rows is not None:
        steps = math.ceil(stage.budget.epochs * math.ceil(rows / chosen.total))
    return PlannedStage(
        stage=stage,
        decisions=decisions,
        batch=chosen,
        trainable=trainable,
        total=total,
        exact=exact,
        steps=steps,
        memory=account(chosen.micro),
    )


def _without_head_and_pooler(facts: Facts) -> Facts:
    """What a head of our own stands on: the backbone without what other heads use."""
    kept = tuple(t for t in facts.tensors if not t.name.startswith(("head.", "pooler.")))
    return facts.model_copy(update={"tensors": kept})


def memory_shortfall(plan: Plan) -> int:
    """Bytes by which the hungriest stage exceeds a device's memory; 0 when it fits or none is known."""
    room = plan.world.memory_per_device
    if room is None:
        return 0
    return max([0, *(needed(planned) - room for planned in plan.stages)])


def needed(planned: PlannedStage) -> int:
    """Bytes that a stage needs on each device; an estimate."""
    return sum(item.bytes for item in planned.memory)


def versions() -> dict[str, str]:
    """What is installed here; part of a run's plan, and not of what is merely planned."""
    found = {"tlscale": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
