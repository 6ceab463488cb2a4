"""Runs one planned stage: base or earlier result -> trained, saved and verified artifact."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn

from tlscale.data.arriving import Arriving
from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.engine.backend import Session
from tlscale.engine.feed import known
from tlscale.engine.keeper import Place
from tlscale.engine.loop import Training, train
from tlscale.errors import VerificationError
from tlscale.models import adapt, artifact
from tlscale.models.caching import without_cache
from tlscale.models.load import load_base
from tlscale.models.routing import with_tasks
from tlscale.models.verify import VerifyReport, changed_files, verify
from tlscale.planning.changes import resume_key
from tlscale.planning.types import Plan, PlannedStage
from tlscale.recipe.types import Model
from tlscale.runs.record import read_lines
from tlscale.worker.chain import Job, merged_before, read_manifest, starting_point
from tlscale.worker.combining import say_shares
from tlscale.worker.hiding import varied
from tlscale.worker.packing import pack
from tlscale.worker.reckoning import marked
from tlscale.worker.shortage import explained

STREAMS = ("replay", "unlabelled")


def run_stage(job: Job, planned: PlannedStage, loaded: nn.Module | None) -> nn.Module | None:
    """Trains, saves and verifies one stage; `loaded` is a fresh base that may be used up.

    Gives the trained module, or none where it was shared out: its parts are let go before the artifact is
    verified, so that the base that is loaded for this isn't held beside them.

    Raises:
        VerificationError: the saved artifact is not what was trained.
    """
    stage, plan, runtime = planned.stage, job.plan, job.runtime
    model, continued = starting_point(job, planned)
    set_seed(seed_of(plan, stage.name))
    if loaded is None or stage.starts_from != "base":
        loaded = load_base(model, plan.facts, head=stage.head, world=plan.world, seed=plan.seed)
    module = adapt.apply(loaded, planned, task=model.task, continue_from=continued)
    if not plan.world.shards_weights:
        module.to(runtime.device)
    initial = artifact.fingerprints(module)
    training = _training(job, planned, module)
    job.reporter.said(
        "stage", name=stage.name, examples=known(training.examples), trainable=planned.trainable
    )
    with job.life.stops.deferred():
        _train_and_save(job, planned, module, training, model, initial)
    runtime.accelerator.wait_for_everyone()
    return None if plan.world.shards_weights else module


def seed_of(plan: Plan, stage: str) -> int:
    """Of all randomness of a stage: the plan's for the first one, another for each that follows.

    So a stage is the same whether it follows at once or after an earlier try has ended.
    """
    if stage == plan.stages[0].stage.name:
        return plan.seed
    return random.Random(f"stage {stage} of seed {plan.seed}").getrandbits(32)


def _train_and_save(
    job: Job,
    planned: PlannedStage,
    module: nn.Module,
    training: Training,
    model: Model,
    initial: dict[str, str],
) -> None:
    """What a request to stop must not cut: after training, nothing is saved until the artifact is."""
    stage = planned.stage
    try:
        with without_cache(module), explained(job.plan, planned):
            done = train(module, training)
    finally:
        job.reporter.close()
    job.life.pulse.at(f"saving and verifying the result of stage {stage.name}")
    job.reporter.said(
        "trained", stage=stage.name, steps=done.steps, tokens=done.tokens, seconds=round(done.seconds, 2),
        loss=done.loss, stopped_early=done.stopped_early, peak_memory_bytes=job.runtime.peak_memory(),
    )  # fmt: skip
    module.eval()
    if not done.session.sharded:
        say_shares(job, training, module)
    probe = _probe(job, planned, model)
    gathered = _gathered(done.session, module, probe)
    done.session.close()
    if job.runtime.leads:
        _save_and_verify(job, planned, module, model, initial, probe, gathered)


def _training(job: Job, planned: PlannedStage, module: nn.Module) -> Training:
    plan, name = job.plan, planned.stage.name
    given = job.examples.get(name) or job.stream or job.examples["train"]
    examples = given
    validation = job.examples.get("validation", ())
    streams = {name: job.examples[name] for name in STREAMS if name in job.examples}
    batches: Callable[..., dict[str, Any]] = partial(
        collate,
        task=plan.recipe.model.task,
        pad_id=getattr(job.processor, "pad_token_id", None) or 0,
    )
    if planned.stage.tasks is not None and planned.stage.tasks.adapter_names:
        batches = with_tasks(batches, planned.stage.tasks.sizes)
    if planned.stage.head.kind == "pooled" and _backbone_is_frozen(planned):
        assert not isinstance(examples, Arriving), "streams have no classes, so no head of ours"
        size = plan.recipe.train.per_device_eval_batch_size
        job.reporter.phase(
            "features", f"computing {len(examples) + len(validation):,} rows once, by the frozen backbone"
        )
        examples = featurized(module, examples, collate=batches, size=size, device=job.runtime.device)
        validation = featurized(module, validation, collate=batches, size=size, device=job.runtime.device)
        streams = {
            stream: featurized(module, rows, collate=batches, size=size, device=job.runtime.device)
            for stream, rows in streams.items()
        }
    if plan.recipe.data.packing:
        rows = pack(module, examples, size=plan.max_length, collate=batches, device=job.runtime.device)
        before, after = known(examples), known(rows)
        if before is not None and after is not None:
            job.reporter.phase("packing", f"{before:,} examples in {after:,} rows")
        examples = rows
    if not isinstance(examples, Arriving) and not isinstance(given, Arriving):
        examples = marked(job, planned, module, given, examples, batches)
    return Training(
        planned=planned,
        examples=examples,
        validation=validation,
        scales=adapt.lr_scales(module, planned),
        collate=batches,
        runtime=job.runtime,
        watcher=job.reporter,
        place=_place(job, name),
        seed=plan.seed,
        streams=streams,
        vary=varied(plan, job.processor),
        new_head=plan.facts.head_is_new or planned.stage.head.kind == "pooled",
        earlier=merged_before(job, planned),
        stops=job.life.stops,
        pulse=job.life.pulse,
    )


def _place(job: Job, stage: str) -> Place:
    return Place(
        stage=stage,
        checkpoints=job.layout.checkpoints(stage),
        ledger=job.layout.ledger(stage),
        replay=job.layout.replay(stage),
        key=resume_key(job.plan),
        guard=job.life.guard,
    )


def _backbone_is_frozen(planned: PlannedStage) -> bool:
    frozen = all(d.lr_scale is None for d in planned.decisions if not d.name.startswith("head."))
    return frozen and planned.stage.adapter is None


@torch.no_grad()
def featurized(
    module: nn.Module, examples: Sequence[Example], *, collate: Any, size: int, device: torch.device
) -> tuple[Example, ...]:
    """The examples with the frozen backbone's pooled features ([hidden], float32) in place of inputs."""
    pooled: Any = module.eval()
    found: dict[int, torch.Tensor] = {}
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].tokens or ()))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch = collate([examples[i] for i in chosen], device=device)
        batch.pop("labels")
        features: torch.Tensor = pooled.features(**batch)
        found |= dict(zip(chosen, features.float().cpu(), strict=True))
    return tuple(
        replace(e, tokens=None, pixels=None, picture=None, features=found[i])
        for i, e in enumerate(examples)
    )


def _probe(job: Job, planned: PlannedStage, model: Model) -> dict[str, torch.Tensor]:
    """A few rows, without labels, that the saved result must answer as the live one does."""
    stage = planned.stage
    rows = job.examples.get("test") or job.examples[stage.name if stage.name in job.examples else "train"]
    inputs = collate(
        rows[:2],
        task=model.task,
        pad_id=getattr(job.processor, "pad_token_id", None) or 0,
        device=job.runtime.device,
    )
    inputs.pop("labels", None)
    return dict(inputs.get("anchor", inputs))


def _gathered(
    session: Session, module: nn.Module, probe: dict[str, torch.Tensor]
) -> artifact.Gathered | None:
    """What is to be saved of a module that is shared out; all processes take part."""
    if not session.sharded:
        return None
    output = artifact.forward(session.module, artifact.probe_inputs(probe), artifact.compute_dtype(module))
    whole = artifact.kind_of(module) == "checkpoint"
    return artifact.Gathered(session.whole() if whole else session.tensors(), output)


def _save_and_verify(
    job: Job,
    planned: PlannedStage,
    module: nn.Module,
    model: Model,
    initial: dict[str, str],
    probe: dict[str, torch.Tensor],
    gathered: artifact.Gathered | None,
) -> None:
    plan, stage = job.plan, planned.stage
    artifact.save(
        module,
        job.processor,
        job.layout.artifact(stage.name),
        planned=planned,
        facts=plan.facts,
        model=model,
        initial=initial,
        probe=probe,
        gathered=gathered,
    )
    _verify(job, planned, model, live=module if gathered is None else None)


def confirm(job: Job, planned: PlannedStage) -> None:
    """Verifies the result of a stage that an earlier try has saved but ended before it had verified it.

    Raises:
        VerificationError: it is not what was trained.
    """
    seen = {row["stage"] for row in read_lines(job.layout.events) if row["event"] == "verified"}
    if job.runtime.leads and planned.stage.name not in seen:
        _verify(job, planned, starting_point(job, planned)[0], live=None)
    job.runtime.accelerator.wait_for_everyone()


def _verify(job: Job, planned: PlannedStage, model: Model, *, live: nn.Module | None) -> None:
    plan, name = job.plan, planned.stage.name
    folder = job.layout.artifact(name)
    report = verify(folder, model=model, facts=plan.facts, world=plan.world, live=live)
    if report.problems:
        job.reporter.said("refused", stage=name, problems=list(report.problems), **report.summary())
        raise VerificationError(f"{folder}: " + "; ".join(report.problems))
    job.reporter.said("verified", stage=name, **report.summary())
    job.reporter.phase("verify", describe(report))


def describe(report: VerifyReport) -> str:
    """One line on a verified artifact."""
    return (
        f"{report.kind}: {report.tensors} tensors, {report.moved} moved, finite, "
        f"reload equal to {report.max_difference:.1e}"
    )


def restored(job: Job, planned: PlannedStage) -> nn.Module:
    """A stage's saved result on a fresh base, on this process's device.

    Raises:
        VerificationError: its files are not those that were saved.
    """
    model, _ = starting_point(job, planned)
    folder = job.layout.artifact(planned.stage.name)
    changed = list(changed_files(folder, read_manifest(folder)))
    if changed:
        raise VerificationError(f"{folder}: " + "; ".join(changed))
    module = artifact.load(folder, model=model, facts=job.plan.facts, world=job.plan.world)
    module.to(job.runtime.device)
    return module
