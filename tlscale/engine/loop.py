"""The training loop: one stage, from prepared examples to a trained module."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tlscale.data.examples import Example
from tlscale.data.loader import batches
from tlscale.engine import checkpoint
from tlscale.engine.backend import Session, begin
from tlscale.engine.objectives import Setting, Terms, make_terms
from tlscale.engine.optim import make_optimizer, make_schedule
from tlscale.engine.runtime import Runtime
from tlscale.engine.step import Beside, Collate, mean_objective, optimize, set_modes, tokens_in
from tlscale.engine.streams import stream_micros
from tlscale.errors import TlscaleError
from tlscale.models import adapt
from tlscale.planning.types import Batch, PlannedStage, Stage


class Watcher(Protocol):
    """Hears of the loop's progress."""

    def step(self, step: int, steps: int, values: Mapping[str, float]) -> None: ...

    def said(self, happened: str, **facts: Any) -> None: ...


@dataclass(frozen=True)
class Training:
    """All that one stage trains on and with; the loop's only argument besides the module."""

    planned: PlannedStage
    examples: Sequence[Example]
    validation: Sequence[Example]
    scales: Mapping[str, float]
    collate: Collate
    runtime: Runtime
    watcher: Watcher
    checkpoints: Path
    fingerprint: str
    seed: int
    streams: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    new_head: bool = False


@dataclass(frozen=True)
class Trained:
    """What the loop ended with; `loss` is the last step's, `session` is for the caller to close."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    stopped_early: bool
    session: Session


def count_steps(stage: Stage, batch: Batch, examples: int) -> int:
    """Optimizer steps of a stage."""
    if stage.budget.max_steps is not None:
        return stage.budget.max_steps
    return max(1, math.ceil(stage.budget.epochs * math.ceil(examples / batch.total)))


def micro_batches(training: Training, steps: int, done: int) -> Iterator[list[list[Example]]]:
    """This rank's micro-batches for every step still to do, epoch after epoch; the last may be empty."""
    batch, runtime, examples = training.planned.batch, training.runtime, training.examples
    grouped = training.planned.stage.group_by_length
    lengths = [len(example.tokens or ()) for example in examples] if grouped else None
    epoch, step = 0, 0
    while step < steps:
        made = batches(
            len(examples),
            micro=batch.micro,
            accumulation=batch.accumulation,
            world=runtime.world,
            rank=runtime.rank,
            seed=training.seed,
            epoch=epoch,
            lengths=lengths,
        )
        for micros in made[: steps - step]:
            if step >= done:
                yield [[examples[i] for i in micro] for micro in micros]
            step += 1
        epoch += 1


def train(module: nn.Module, training: Training) -> Trained:
    """Trains `module` in place; goes on from the newest checkpoint of the same plan.

    With early stopping the module ends with the weights of its lowest validation loss.

    Raises:
        TlscaleError: there is nothing to train on, or the loss is no longer a finite number.
    """
    stage, runtime = training.planned.stage, training.runtime
    if not training.examples:
        raise TlscaleError(f"stage {stage.name}: no training examples are left after preparation")
    steps = count_steps(stage, training.planned.batch, len(training.examples))
    terms = _terms(module, training)
    session = _begun(module, training)
    schedule = make_schedule(session.optimizer, stage.schedule, steps)
    progress = _resumed(session, schedule, training)
    started, tokens_before = time.perf_counter(), progress.tokens
    loss, stopped = math.nan, False
    set_modes(session.module)
    for micros in micro_batches(training, steps, progress.step):
        loss, norm = optimize(
            session,
            micros,
            terms,
            filler=training.examples[0],
            collate=training.collate,
            runtime=runtime,
            beside=_beside(training, terms, progress.step, steps),
        )
        rate = float(schedule.get_last_lr()[-1])
        schedule.step()
        progress.step += 1
        adapt.after_step(module, progress.step)
        progress.tokens += int(runtime.total(sum(map(tokens_in, micros))))
        speed = (progress.tokens - tokens_before) / (time.perf_counter() - started)
        values = {"loss": loss, "learning_rate": rate, "grad_norm": norm, "tokens_per_second": speed}
        training.watcher.step(progress.step, steps, values)
        if training.validation and _due(stage.budget.eval_steps, progress.step):
            stopped = _validate(session, terms, training, progress)
        if _due(stage.budget.save_steps, progress.step):
            _save(session, schedule, training, progress)
        if stopped:
            break
    if stage.budget.early_stopping_patience is not None:
        runtime.accelerator.wait_for_everyone()
        checkpoint.load_best(training.checkpoints, session)
    return Trained(progress.step, progress.tokens, time.perf_counter() - started, loss, stopped, session)


def _terms(module: nn.Module, training: Training) -> Terms:
    return make_terms(
        Setting(
            module,
            training.planned,
            training.runtime,
            training.collate,
            training.streams,
            training.new_head,
        )
    )


def _beside(training: Training, terms: Terms, step: int, steps: int) -> Beside:
    """The rows of other streams that belong to `step`, as far as a term asks for them."""
    batch, runtime = training.planned.batch, training.runtime
    made = {
        stream: stream_micros(
            training.streams[stream], batch, rank=runtime.rank, seed=training.seed, stream=stream, step=step
        )
        for stream in sorted({stream for _, term in terms for stream in term.needs})
    }
    return Beside(made, step / steps)


def _begun(module: nn.Module, training: Training) -> Session:
    update, first_steps = training.planned.stage.update, adapt.first_steps(module, training.planned)

    def optimizer(live: nn.Module) -> Optimizer:
        return make_optimizer(live, training.scales, update, first_steps)

    return begin(module, training.planned, training.runtime, optimizer)


def _resumed(session: Session, schedule: LRScheduler, training: Training) -> checkpoint.Progress:
    """Where to go on from: the newest whole checkpoint of the same plan, or the start."""
    found = checkpoint.newest(training.checkpoints, training.fingerprint)
    if found is None:
        return checkpoint.Progress()
    progress = checkpoint.load(found, session, schedule)
    training.watcher.said(
        "resumed", stage=training.planned.stage.name, step=progress.step, checkpoint=found.name
    )
    return progress


def _save(
    session: Session, schedule: LRScheduler, training: Training, progress: checkpoint.Progress
) -> None:
    folder, leads = training.checkpoints, training.runtime.leads
    checkpoint.save(folder, session, schedule, progress, training.fingerprint, leads=leads)


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _validate(session: Session, terms: Terms, training: Training, progress: checkpoint.Progress) -> bool:
    """Measures the validation loss, keeps the best weights; returns whether patience is at an end."""
    stage, runtime = training.planned.stage, training.runtime
    loss = mean_objective(
        session.module,
        training.validation,
        terms,
        collate=training.collate,
        runtime=runtime,
        size=training.planned.batch.micro,
    )
    set_modes(session.module)
    training.watcher.said("validated", stage=stage.name, step=progress.step, loss=loss)
    patience = stage.budget.early_stopping_patience
    if loss < progress.best:
        progress.best, progress.evaluations_without_gain = loss, 0
        if patience is not None:
            checkpoint.save_best(training.checkpoints, session, leads=runtime.leads)
    else:
        progress.evaluations_without_gain += 1
    return patience is not None and progress.evaluations_without_gain >= patience
