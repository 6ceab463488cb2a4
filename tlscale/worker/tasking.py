"""Evaluation tasks on a run's base and result, or on any model.

Each task is run by itself, so that one that fails leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from tlscale import plugins
from tlscale.engine import runtime as runtimes
from tlscale.errors import PlanError, TlscaleError
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.scoring.progress import Bar, silent
from tlscale.evaluation.tasks import contamination
from tlscale.evaluation.tasks.find import expanded, find
from tlscale.evaluation.tasks.prepare import Overlaps, Setting, prepare, suite_name
from tlscale.evaluation.tasks.prompt import Message, Render
from tlscale.evaluation.tasks.run import Place, Predictor, run
from tlscale.evaluation.types import Measurement
from tlscale.models.load import load_base, load_processor
from tlscale.models.other import adapted
from tlscale.planning.scoring import is_address
from tlscale.planning.types import Plan
from tlscale.recipe.base import Frozen
from tlscale.recipe.evaluate import Evaluate
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import exclusive
from tlscale.worker.chain import Job, final_stage
from tlscale.worker.console import Reporter
from tlscale.worker.examples import load_rows
from tlscale.worker.harness import PREFIX, score_harness
from tlscale.worker.stages import restored

BY_TASK = {
    "causal-lm": "lm",
    "masked-lm": "masked-lm",
    "sequence-classification": "head",
    "image-classification": "head",
    "audio-classification": "head",
    "sentence-embedding": "embedding",
}
WITHOUT_PROCESSOR = ("nli", "masked-lm", "clip", "endpoint")
LONGEST_BY_DEFAULT = 2048


class Request(Frozen):
    """What `tlscale eval --tasks` was asked for."""

    evaluate: Evaluate


@dataclass(frozen=True)
class Scored:
    """What came of an arm's tasks: measurements, and a sentence for each task that failed."""

    measurements: tuple[Measurement, ...]
    failures: tuple[str, ...]


def tasks(plan: Plan, layout: RunLayout, as_json: bool, request: str = "{}") -> None:
    """Scores base and result of a run, or a model alone, on the tasks of the request.

    Raises:
        TlscaleError: a task failed; the others were scored and filed.
    """
    asked = Request.model_validate_json(request).evaluate
    runtime = runtimes.start(plan, layout.trackers)
    reporter = Reporter(layout, rank=runtime.rank, logging_steps=1, unit="rows", log=_nowhere)
    with exclusive(layout.events) if runtime.leads else nullcontext():
        processor = _processor(plan, asked)
        job = Job(plan, layout, runtime, reporter, processor, {})
        failures: list[str] = []
        for arm, module, stage in _arms(job, asked):
            failures += score_tasks(job, asked, arm, module, stage).failures
    raise_failures(failures)


def raise_failures(failures: Sequence[str]) -> None:
    """Says which tasks failed, after the others are done.

    Raises:
        TlscaleError: if any did.
    """
    if failures:
        count = f"{len(failures)} task{'s'[: len(failures) != 1]} failed; the others were scored:"
        raise TlscaleError("\n  ".join([count, *dict.fromkeys(failures)]))


def _arms(job: Job, asked: Evaluate) -> Iterator[tuple[str, nn.Module | None, str | None]]:
    """Who is scored: the base, then what was made of it; `None` where the predictor loads its own."""
    plan = job.plan
    if not plan.stages:
        if asked.adapter is None:
            yield "base", None, None
            return
        base = load_base(
            plan.recipe.model, plan.facts, head=None, world=plan.world, seed=plan.seed, scoring=True
        )
        yield "tuned", adapted(base, Path(asked.adapter)).to(job.runtime.device), None
        return
    yield "base", None, None
    planned = final_stage(plan, job.layout)
    if planned is None:
        raise PlanError(f"{job.layout.root}: the run has left no result yet; only the base was scored")
    yield "tuned", restored(job, planned), planned.stage.name


def score_tasks(
    job: Job,
    asked: Evaluate,
    arm: str,
    module: nn.Module | None,
    stage: str | None,
    *,
    done: frozenset[str] = frozenset(),
) -> Scored:
    """All tasks of `asked`, each with each number of shots and each order of them.

    `module` is on its device; `None` where the predictor loads its own. Suites in `done` are left out.
    """
    if not asked.tasks:
        return Scored((), ())
    predictor = _predictor(job, asked, module)
    render = _renderer(job.processor) if asked.chat else None
    overlapping = _overlapping(job.plan) if asked.contamination else None
    reporter = job.reporter
    place = _place(job, asked, arm, stage)
    made: list[Measurement] = []
    failures = []
    orders: tuple[int | None, ...] = asked.order_seeds or (None,)
    for name, shots, order in product(expanded(asked.tasks), asked.shots, orders):
        setting = _setting(job, asked, shots, order, render, overlapping)
        try:
            if name.startswith(PREFIX):
                made += score_harness(name, predictor, place, shots=shots, limit=asked.max_rows)
                continue
            task = find(name)
            if suite_name(task.name, setting) in done:
                continue
            prepared = prepare(task, setting, needs_train=predictor.learns)
            for note in prepared.notes:
                reporter.warn(note)
            with job.runtime.accelerator.autocast():
                found = run(prepared, predictor, place)
        except TlscaleError as error:
            failures.append(f"{arm}: {error}" if name in str(error) else f"{arm}: {name}: {error}")
            reporter.warn(f"failed: {failures[-1]}")
            continue
        made += found
        scores = ", ".join(f"{m.metric} {m.value:.4g}" for m in found)
        reporter.phase(arm, f"{prepared.name} {scores}   [{predictor.name}, {prepared.scored:,} items]")
    return Scored(tuple(made), tuple(failures))


def _place(job: Job, asked: Evaluate, arm: str, stage: str | None) -> Place:
    return Place(
        layout=job.layout,
        arm=arm,
        stage=stage,
        rank=job.runtime.rank,
        world=job.runtime.world,
        collect=job.runtime.collect,
        cut_share=asked.cut_share,
        say=job.reporter.warn,
    )


def _setting(
    job: Job,
    asked: Evaluate,
    shots: int,
    order: int | None,
    render: Render | None,
    overlapping: Overlaps | None,
) -> Setting:
    return Setting(
        shots=shots,
        selection=asked.shot_selection,
        seed=job.plan.recipe.seed,
        order_seed=order,
        max_rows=asked.max_rows,
        folder=None if asked.data_dir is None else Path(asked.data_dir).expanduser(),
        calibrations=asked.calibration,
        render=render,
        contaminated=overlapping,
    )


def _overlapping(plan: Plan) -> Overlaps:
    """Looks documents up in the rows that the recipe trains on.

    Raises:
        PlanError: it trains on none.
    """
    found = load_rows(plan).get("train") if plan.recipe.data.train is not None else None
    if found is None:
        raise PlanError("evaluate.contamination: there is no data.train to look the items up in")
    _, rows = found
    training = contamination.known(text for row in rows for text in _texts(row.values.values()))
    return lambda documents: contamination.overlaps(documents, training)


def _texts(cells: Iterable[Any]) -> tuple[str, ...]:
    """Every text of a row by itself, and all of them as one; of conversations, what was said."""
    found: list[str] = []
    for cell in cells:
        if isinstance(cell, str):
            found.append(cell)
        elif isinstance(cell, list):
            found += [str(turn["content"]) for turn in cell if isinstance(turn, dict) and "content" in turn]
    return tuple(dict.fromkeys([*found, " ".join(found)]))


def _predictor(job: Job, asked: Evaluate, module: nn.Module | None) -> Predictor:
    """Who answers: as asked, else what fits the model; a base without a head answers by embeddings."""
    plan = job.plan
    task = plan.recipe.model.task
    name = asked.predictor or BY_TASK[task]
    if asked.predictor is None and name == "head" and module is None:
        name = "embedding"
    longest = plan.max_length
    if name == "lm":
        longest = plan.facts.architecture.max_length or LONGEST_BY_DEFAULT
    setup = Setup(
        model=plan.recipe.model,
        facts=plan.facts,
        world=plan.world,
        seed=plan.seed,
        device=job.runtime.device,
        module=module,
        processor=job.processor,
        size=plan.recipe.train.per_device_eval_batch_size,
        max_length=longest,
        options=asked.predictor_options,
        secret=runtimes.secret,
        say=job.reporter.warn,
        rank=job.runtime.rank,
        processes=job.runtime.world,
        collect=job.runtime.collect,
        journal=job.layout.answers,
        progress=Bar() if job.runtime.leads else silent,
    )
    made: Predictor = plugins.load("tlscale.predictors", name)(setup)
    return made


def _processor(plan: Plan, asked: Evaluate) -> Any:
    """The tokenizer, for predictors that don't bring their own."""
    if is_address(plan.recipe.model.model_name_or_path) or asked.predictor in WITHOUT_PROCESSOR:
        return None
    return load_processor(plan.recipe.model, plan.facts)


def _renderer(processor: Any) -> Render:
    """Conversations as the model's own chat template puts them.

    Raises:
        PlanError: it has none.
    """
    if getattr(processor, "chat_template", None) is None:
        raise PlanError(
            "evaluate.chat: the model has no chat template; set model.chat_template, or leave it out"
        )

    def render(conversation: list[Message]) -> str:
        text: str = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        start: str | None = processor.bos_token
        # the tokenizer puts this token before every text itself
        return text.removeprefix(start) if start else text

    return render


def _nowhere(values: Mapping[str, float], step: int) -> None:
    """Scoring logs to no tracker."""
