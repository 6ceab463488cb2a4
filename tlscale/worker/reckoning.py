"""What is reckoned of a stage's training rows before it begins: weights for another domain, difficulties.

They are kept in the run directory, so that a run that goes on has the same, on however many processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tlscale.data.examples import Example
from tlscale.data.marked import Marked
from tlscale.data.types import lengths
from tlscale.errors import DataError
from tlscale.models.likelihood import scored, token_nll
from tlscale.models.load import load_base
from tlscale.planning.changes import resume_key
from tlscale.planning.types import Head, PlannedStage
from tlscale.probes.arrays import Floats, Ints, Linear
from tlscale.probes.importance import class_weights, density_ratio, effective_rows, settled
from tlscale.recipe.train import Curriculum, Importance
from tlscale.runs.record import write_json
from tlscale.sources import place, records
from tlscale.sources.rows import missing
from tlscale.worker.chain import Job

Collate = Callable[..., dict[str, Any]]


def marked(
    job: Job,
    planned: PlannedStage,
    module: nn.Module,
    given: Sequence[Example],
    examples: Sequence[Example],
    collate: Collate,
) -> Sequence[Example]:
    """`examples` with the weights and difficulties that the stage asks for.

    Args:
        module: As the stage begins, with its adapter.
        given: The same examples with their own inputs, where features stand in for them in `examples`.
        examples: What is trained on.
        collate: Examples, and a device, to a batch.

    Raises:
        DataError: there are no rows to reckon by, or a row has no difficulty.
    """
    stage = planned.stage
    if stage.importance is None and stage.curriculum is None:
        return examples
    told = _told_before(job, planned, len(examples))
    if told is None:
        job.life.pulse.at(f"reckoning weights and difficulties of stage {stage.name}")
        told = {"key": resume_key(job.plan), "weights": None, "difficulty": None}
        if stage.importance is not None:
            told["weights"] = _weights(job, stage.importance, given, collate)
        if stage.curriculum is not None:
            told["difficulty"] = _difficulty(job, planned, stage.curriculum, module, given, collate)
        if job.runtime.leads:
            write_json(job.layout.reckoned(stage.name), told)
    if told["weights"] is not None:
        _say(job, stage.name, np.array(told["weights"]))
    return Marked(examples, weights=told["weights"], difficulty=told["difficulty"])


def _told_before(job: Job, planned: PlannedStage, rows: int) -> dict[str, Any] | None:
    """What an earlier try of this plan reckoned of as many rows; read by one process, told to all."""
    found: dict[str, Any] | None = None
    path = job.layout.reckoned(planned.stage.name)
    if job.runtime.leads and path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        lists = [found[name] for name in ("weights", "difficulty") if found[name] is not None]
        if found["key"] != resume_key(job.plan) or any(len(values) != rows for values in lists):
            found = None
    told: list[dict[str, Any] | None] = job.runtime.collect([found])
    return told[0]


def _say(job: Job, stage: str, weights: Floats) -> None:
    sure, largest = effective_rows(weights), float(weights.max())
    job.reporter.said(
        "importance", stage=stage, rows=len(weights), effective_rows=sure, smallest=float(weights.min()),
        largest=largest,
    )  # fmt: skip
    job.reporter.phase(
        "weights",
        f"{len(weights):,} rows count as {sure:,.0f} equal ones; from {weights.min():.2f} to {largest:.2f}",
    )


def _weights(job: Job, asked: Importance, examples: Sequence[Example], collate: Collate) -> list[float]:
    """One for each of `examples`, 1 on average, for the domain of data.unlabelled."""
    plan, size = job.plan, job.plan.recipe.train.per_device_eval_batch_size
    device = job.runtime.device
    base: Any = load_base(
        plan.recipe.model, plan.facts, head=Head(kind="pooled"), world=plan.world, seed=plan.seed
    ).to(device)

    @torch.no_grad()
    def measure(rows: Sequence[Example]) -> list[Any]:
        batch = collate(rows, device=device)
        batch.pop("labels")
        return list(base.features(**batch).float().cpu().numpy())

    def features(rows: Sequence[Example]) -> Floats:
        return np.stack(_each(job, rows, size, measure)).astype(np.float64)

    source, target = features(examples), features(job.examples["unlabelled"])
    if asked.kind == "covariate":
        found = density_ratio(source, target, seed=plan.seed)
    else:
        held_out = job.examples.get("validation", ())
        labels, known = _labels(examples), _labels(held_out)
        classes = len(plan.facts.labels)
        model = Linear(source, labels, classes)

        def says(rows: Floats) -> Floats:
            return model.probabilities(rows) if asked.soft else np.eye(classes)[model.predict(rows)]

        by_class = class_weights(says(features(held_out)), known, says(target), plan.facts.labels)
        job.reporter.said(
            "label_shift", weights=dict(zip(plan.facts.labels, by_class.tolist(), strict=True))
        )
        found = by_class[labels]
    made: list[float] = settled(found, strength=asked.strength, most=asked.max_weight).tolist()
    return made


def _labels(examples: Sequence[Example]) -> Ints:
    return np.array([example.label for example in examples], dtype=np.int64)


def _difficulty(
    job: Job,
    planned: PlannedStage,
    asked: Curriculum,
    module: nn.Module,
    examples: Sequence[Example],
    collate: Collate,
) -> list[float]:
    if asked.by == "length":
        return [float(length) for length in lengths(examples)]
    if asked.by == "loss":
        return _losses(job, module, examples, collate)
    source = planned.stage.source or job.plan.recipe.data.train
    assert source is not None, "examples came from somewhere"
    assert asked.column is not None, "the recipe's own check asks for it"
    found: dict[str, float] = {}
    for row in records(source):
        if asked.column not in row.values:
            raise DataError(
                f"train.curriculum.column: {place(source)}: {missing(asked.column, tuple(row.values))}"
            )
        found[row.where] = _number(row.values[asked.column], f"{row.where}: column {asked.column!r}")
    return [found[example.where] for example in examples]


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where} is {value!r}; a difficulty is a finite number")
    return number


def _losses(job: Job, module: nn.Module, examples: Sequence[Example], collate: Collate) -> list[float]:
    """The loss of each of `examples` as the stage begins: of its class, or a mean over learned tokens."""
    device = next(module.parameters()).device
    training = module.training
    module.eval()

    @torch.no_grad()
    def measure(rows: Sequence[Example]) -> list[float]:
        batch = collate(rows, device=device)
        labels = batch.pop("labels")
        with job.runtime.accelerator.autocast():
            logits = module(**batch).logits.float()
        if labels.dim() == 1:
            return [float(loss) for loss in functional.cross_entropy(logits, labels, reduction="none")]
        return [float(x) for x in token_nll(logits, labels).sum(dim=1) / scored(labels).clamp(min=1)]

    found: list[float] = _each(job, examples, job.plan.recipe.train.per_device_eval_batch_size, measure)
    module.train(training)
    return found


def _each(
    job: Job, examples: Sequence[Example], size: int, measure: Callable[[Sequence[Example]], list[Any]]
) -> list[Any]:
    """What `measure` makes of each of `examples`, in batches that processes share out. Collective.

    Batches don't depend on the number of processes, so that what is measured doesn't either.
    """
    sizes = lengths(examples)
    order = sorted(range(len(examples)), key=lambda at: -sizes[at])
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    mine = []
    for chosen in batches[job.runtime.rank :: job.runtime.world]:
        mine.append((chosen, measure([examples[at] for at in chosen])))
    made: dict[int, Any] = {}
    for chosen, values in job.runtime.collect(mine):
        made |= dict(zip(chosen, values, strict=True))
    return [made[at] for at in range(len(examples))]
