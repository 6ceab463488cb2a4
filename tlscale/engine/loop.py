"""The training loop: one stage, from prepared examples to a trained module."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, Protocol

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tlscale.data.arriving import Arriving, Examples
from tlscale.data.examples import Example
from tlscale.data.varying import Varied, Vary, same
from tlscale.engine.averaging import Average, averaged
from tlscale.engine.backend import Session, begin
from tlscale.engine.checkpoint import Progress, Subject
from tlscale.engine.feed import count_steps, known, micro_batches
from tlscale.engine.keeper import Keeper, Place, Told
from tlscale.engine.mishap import mishap
from tlscale.engine.mixout import Mixout, make_mixout
from tlscale.engine.multitask import by_task
from tlscale.engine.objectives import Setting, Terms, learned_by, make_terms
from tlscale.engine.optim import make_optimizer, make_schedule
from tlscale.engine.runtime import Runtime
from tlscale.engine.signals import Stops, ignore
from tlscale.engine.step import Beside, Collate, Stepped, mean_objective, optimize, set_modes, tokens_in
from tlscale.engine.streams import streams_of
from tlscale.errors import Stopped
from tlscale.models import adapt
from tlscale.planning.types import PlannedStage, Stage
from tlscale.runs.ledger import Record
from tlscale.runs.pulse import Pulse


class Watcher(Told, Protocol):
    """Hears of the loop's progress."""

    def step(self, step: int, steps: int, values: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Training:
    """All that one stage trains on and with; the loop's only argument besides the module.

    `vary` makes the training rows and streams of an epoch from `examples` and `streams`.
    """

    planned: PlannedStage
    examples: Examples
    validation: Sequence[Example]
    scales: Mapping[str, float]
    collate: Collate
    runtime: Runtime
    watcher: Watcher
    place: Place
    seed: int
    streams: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    vary: Vary = same
    new_head: bool = False
    earlier: Sequence[Path] = ()
    stops: Stops = field(default_factory=Stops)
    pulse: Pulse = field(default_factory=Pulse)


@dataclass(frozen=True)
class Trained:
    """What the loop ended with; `loss` is the last step's, `session` is for the caller to close."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    stopped_early: bool
    session: Session


@dataclass(frozen=True)
class _Live:
    """What a stage consists of while it trains; `progress` is what changes.

    `measured` begins with the task's own loss, `terms` are what is trained on.
    """

    training: Training
    module: nn.Module
    session: Session
    schedule: LRScheduler
    keeper: Keeper
    measured: Terms
    terms: Terms
    progress: Progress
    steps: int
    average: Average | None
    mixout: Mixout | None

    @property
    def stage(self) -> Stage:
        return self.training.planned.stage

    @property
    def kept(self) -> Subject:
        """What checkpoints are of."""
        beside = {} if self.average is None else {"average": self.average}
        return Subject(self.session, self.schedule, {**learned_by(self.terms), **beside})


def train(module: nn.Module, training: Training) -> Trained:
    """Trains `module` in place; goes on from the newest checkpoint of the same plan.

    With early stopping the module ends with the weights of its lowest validation loss; where weights are
    averaged, they are validated and ended with as averages.

    Raises:
        Stopped: a signal asked for it; everything is saved.
        WriteError: a checkpoint can't be written, and that is to stop training.
        TlscaleError: there is nothing to train on, or the loss is no longer a finite number.
    """
    stage, runtime = training.planned.stage, training.runtime
    steps = count_steps(stage, training.planned.batch, training.examples)
    setting = _setting(module, training)
    measured, terms = by_task(make_terms(setting), setting)
    average, mixout = averaged(module, stage.averaging, steps), make_mixout(setting, training.seed)
    session = _begun(module, training)
    schedule = make_schedule(session.optimizer, stage.schedule, steps)
    keeper = Keeper(training.place, stage.safety, runtime, training.watcher)
    try:
        live = _Live(
            training, module, session, schedule, keeper, measured, terms, Progress(), steps, average, mixout
        )
        rows = training.planned.batch.total
        return _trained(replace(live, progress=keeper.restore(live.kept, known(training.examples), rows)))
    except BaseException:
        session.close()
        raise
    finally:
        keeper.close()


def _trained(live: _Live) -> Trained:
    training, progress, keeper = live.training, live.progress, live.keeper
    started, tokens_before, loss = time.perf_counter(), progress.tokens, math.nan
    set_modes(live.session.module)
    ended = _validated(live) or _out_of_patience(live)
    todo = micro_batches(
        training.examples, training.planned, training.runtime, seed=training.seed, steps=live.steps,
        done=progress.step,
    )  # fmt: skip
    for epoch, micros in () if ended else todo:
        training.pulse.at(f"step {progress.step + 1} of stage {live.stage.name}", guarded=True)
        stepped, rate = _step(live, epoch, micros)
        loss = stepped.loss
        tokens, asked = training.runtime.totals(
            tokens_in(training.examples[i] for micro in micros for i in micro),
            training.stops.reason() is not None,
        )
        progress.tokens += int(tokens)
        speed = (progress.tokens - tokens_before) / (time.perf_counter() - started)
        values = {"loss": loss, "learning_rate": rate, "grad_norm": stepped.norm}
        if stepped.conflicts is not None:
            values["conflicts"] = stepped.conflicts
        if stepped.updated:
            training.watcher.step(progress.step, live.steps, {**values, "tokens_per_second": speed})
        if asked:
            _leave(live)
        ended = _validated(live)
        if _due(live.stage.budget.save_steps, progress.step):
            training.pulse.at(f"save after step {progress.step}")
            keeper.save(live.kept, progress)
        if ended:
            break
    training.pulse.at("end of training")
    keeper.settle()
    if live.average is not None:
        live.average.place_into(live.session)
    if live.stage.budget.early_stopping_patience is not None and progress.best_step:
        keeper.load_best(live.session, progress.best_step)
    seconds = time.perf_counter() - started
    return Trained(progress.step, progress.tokens, seconds, loss, ended, live.session)


def _setting(module: nn.Module, training: Training) -> Setting:
    return Setting(
        module,
        training.planned,
        training.runtime,
        training.collate,
        {name: Varied(rows, training.vary) for name, rows in training.streams.items()},
        training.new_head,
        () if isinstance(training.examples, Arriving) else Varied(training.examples, training.vary),
        training.earlier,
    )


def _begun(module: nn.Module, training: Training) -> Session:
    update, first_steps = training.planned.stage.update, adapt.first_steps(module, training.planned)

    def optimizer(live: nn.Module) -> Optimizer:
        return make_optimizer(live, training.scales, update, first_steps)

    return begin(module, training.planned, training.runtime, optimizer)


def _step(live: _Live, epoch: int, micros: list[list[int]]) -> tuple[Stepped, float]:
    """Takes one step, or leaves it out where its numbers are not finite; also gives its learning rate."""
    training, progress = live.training, live.progress
    taken = [[training.vary(training.examples[i], epoch, i) for i in micro] for micro in micros]
    needed = {stream: training.streams[stream] for _, term in live.terms for stream in term.needs}
    drawn = streams_of(
        needed, training.planned.batch, rank=training.runtime.rank, seed=training.seed, step=progress.step,
        vary=training.vary,
    )  # fmt: skip
    stepped = optimize(
        live.session,
        taken,
        live.terms,
        filler=training.examples[0],
        collate=training.collate,
        runtime=training.runtime,
        beside=Beside(drawn, progress.step / live.steps),
        passed=training.pulse.on,
        apart=live.stage.tasks is not None and live.stage.tasks.balance == "pcgrad",
        mixed=live.mixout.mixed(progress.step) if live.mixout else None,
    )
    if not stepped.updated:
        mishap(
            stepped, taken, progress, place=training.place, safety=live.stage.safety,
            session=live.session, runtime=training.runtime, told=training.watcher,
        )  # fmt: skip
    rate = float(live.schedule.get_last_lr()[-1])
    live.schedule.step()
    progress.step += 1
    adapt.after_step(live.module, progress.step)
    if live.average is not None:
        live.average.take(live.session.tensors(), progress.step)
    live.keeper.note(Record(progress.step, epoch, tuple(i for micro in micros for i in micro)))
    return stepped, rate


def _leave(live: _Live) -> NoReturn:
    """Saves and ends: some process was asked to stop, and now all of them know."""
    training, progress = live.training, live.progress
    training.pulse.at(f"last save, after step {progress.step}")
    live.keeper.save_once(live.kept, progress)
    reasons = [reason for reason in training.runtime.collect([training.stops.reason()]) if reason]
    ignore()
    raise Stopped(reasons[0], stage=live.stage.name, step=progress.step, steps=live.steps)


def _due(every: int | None, step: int) -> bool:
    return every is not None and step > 0 and step % every == 0


def _out_of_patience(live: _Live) -> bool:
    patience = live.stage.budget.early_stopping_patience
    return patience is not None and live.progress.evaluations_without_gain >= patience


def _validated(live: _Live) -> bool:
    """Measures the validation loss where that is due, and keeps the best weights.

    A step that was saved before it was validated is validated when training goes on. Returns whether
    patience is at an end.
    """
    training, progress = live.training, live.progress
    due = training.validation and _due(live.stage.budget.eval_steps, progress.step)
    if not due or progress.validated == progress.step:
        return False
    training.pulse.at(f"validation after step {progress.step}")
    with live.average.in_place(live.session) if live.average else nullcontext():
        return _measured(live)


def _measured(live: _Live) -> bool:
    """Measures the validation loss of the weights as they stand in the module."""
    training, progress = live.training, live.progress
    loss = mean_objective(
        live.session.module,
        training.validation,
        live.measured,
        collate=training.collate,
        runtime=training.runtime,
        size=training.planned.batch.micro,
        passed=training.pulse.on,
    )
    set_modes(live.session.module)
    progress.validated = progress.step
    training.watcher.said("validated", stage=live.stage.name, step=progress.step, loss=loss)
    if loss < progress.best:
        progress.best, progress.best_step, progress.evaluations_without_gain = loss, progress.step, 0
        if live.stage.budget.early_stopping_patience is not None:
            live.keeper.best(live.session, progress)
    else:
        progress.evaluations_without_gain += 1
    return _out_of_patience(live)
