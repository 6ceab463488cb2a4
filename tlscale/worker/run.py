"""What a worker can be asked to do with a run directory: train, evaluate again, verify again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext

from torch import nn

from tlscale.engine import runtime as runtimes
from tlscale.engine.life import Life
from tlscale.errors import PlanError, VerificationError
from tlscale.evaluation.types import Measurement
from tlscale.models.load import load_base, load_processor
from tlscale.models.verify import verify
from tlscale.planning.summary import facts_of
from tlscale.planning.types import Plan
from tlscale.recipe.types import WITHOUT_TEXT
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import exclusive, read_lines, write_json, write_text
from tlscale.worker import standing
from tlscale.worker.advising import look
from tlscale.worker.chain import Job, final_stage, finished, read_manifest, starting_point
from tlscale.worker.console import Reporter
from tlscale.worker.examples import load_examples, load_stream
from tlscale.worker.gradients import gradients
from tlscale.worker.inspection import inspect
from tlscale.worker.measure import Judge, base_arm, control_arms, model_arm
from tlscale.worker.merging import merge
from tlscale.worker.mixing import soup
from tlscale.worker.predicting import predict
from tlscale.worker.probing import probe
from tlscale.worker.publication import check as examine
from tlscale.worker.publication import prepare
from tlscale.worker.reading import read
from tlscale.worker.replaying import replay
from tlscale.worker.stages import confirm, describe, restored, run_stage
from tlscale.worker.tasking import raise_failures, score_tasks, tasks
from tlscale.worker.watch import watched


def train(plan: Plan, layout: RunLayout, as_json: bool, *, life: Life | None = None) -> None:
    """Measures the base, trains every stage that isn't done yet, measures the result.

    Args:
        life: What this process hears and shows, where it is a process of its own.

    Raises:
        Stopped: a signal or the file STOP asked for it.
        TlscaleError: a phase failed; what earlier phases left stays and is used by the next try.
    """
    runtime = runtimes.start(plan, layout.trackers)
    with exclusive(layout.events) if runtime.leads else nullcontext(), ExitStack() as stack:
        if runtime.leads:
            # a batch script clears the request itself, and one that came while this process started counts
            asked = () if life is not None and life.attempt is not None else (layout.stop,)
            for marker in (layout.failed, layout.stopped, *asked):
                marker.unlink(missing_ok=True)
        if life is None:
            life = Life()
        else:
            stack.enter_context(watched(plan, layout, runtime, life.pulse))
        if runtime.leads:
            life.stops.look_for(layout.stop)
        job, judge = _start(plan, layout, runtime, life=life)
        if job.stream is not None:
            stack.callback(job.stream.close)
        _train(plan, layout, job, judge)


def _train(plan: Plan, layout: RunLayout, job: Job, judge: Judge) -> None:
    pulse = job.life.pulse
    pulse.at("the base")
    fresh = _fresh_base(plan) if _needs_base(plan, layout) else None
    base = _measured(layout, "base") or _measure_base(judge, fresh)
    _say_scores(job.reporter, "base", base)
    failures = _tasks(job, "base", _headed(plan, fresh), None)
    for arm in control_arms(judge):
        _say_scores(job.reporter, arm.name, _measured(layout, arm.name) or judge.score(arm))
    module: nn.Module | None = None
    for planned in plan.stages:
        if finished(layout, planned.stage.name):
            job.reporter.phase("stage", f"{planned.stage.name}: done before")
            confirm(job, planned)
            module = None
        else:
            module = run_stage(job, planned, fresh)
            fresh = None
        standing.after(job, judge, planned, module)
    if plan.stages:
        last = plan.stages[-1].stage.name
        if module is None:
            module = restored(job, plan.stages[-1])
        pulse.at("scoring the result")
        job.life.guard()
        job.life.stops.leave_if_asked()
        arm = model_arm(judge, module, "tuned", last)
        standing.at_an_end(judge, arm, last)
        tuned = judge.score(arm)
        if job.runtime.leads:
            _publish_result(layout, last)
        _say_scores(job.reporter, "tuned", tuned, base)
        failures += _tasks(job, "tuned", module, last)
    job.reporter.said("done")
    if plan.recipe.train.report_to:
        rows = [Measurement.model_validate(row) for row in read_lines(layout.measurements)]
        scores = {f"{m.suite}/{m.metric}/{m.arm}": m.value for m in rows}
        job.runtime.accelerator.log(scores, step=sum(planned.steps or 0 for planned in plan.stages))
    job.runtime.accelerator.end_training()
    job.life.guard()
    if job.runtime.leads:
        write_text(layout.done, f"{plan.fingerprint}\n")
    raise_failures(failures)


def evaluate(plan: Plan, layout: RunLayout, as_json: bool) -> None:
    """Scores base and result again, from what lies in the run directory."""
    runtime = runtimes.start(plan, layout.trackers)
    with exclusive(layout.events) if runtime.leads else nullcontext():
        _evaluate(plan, layout, *_start(plan, layout, runtime))


def _evaluate(plan: Plan, layout: RunLayout, job: Job, judge: Judge) -> None:
    fresh = _fresh_base(plan)
    base = _measure_base(judge, fresh)
    _say_scores(job.reporter, "base", base)
    failures = _tasks(job, "base", _headed(plan, fresh), None, again=True)
    planned = final_stage(plan, layout)
    if planned is not None:
        module, stage = restored(job, planned), planned.stage.name
        tuned = judge.score(model_arm(judge, module, "tuned", stage))
        _say_scores(job.reporter, "tuned", tuned, base)
        failures += _tasks(job, "tuned", module, stage, again=True)
    raise_failures(failures)


def check(plan: Plan, layout: RunLayout, as_json: bool) -> None:
    """Verifies the artifacts of all stages on fresh bases.

    Raises:
        PlanError: there is no artifact yet.
        VerificationError: an artifact is not what it must be; every reason is given.
    """
    job, _ = _start(plan, layout, runtimes.start(plan, layout.trackers), with_data=False)
    done = [planned for planned in plan.stages if finished(layout, planned.stage.name)]
    if not done:
        raise PlanError(f"{layout.root}: no stage has left an artifact to verify")
    problems, reports = [], {}
    for planned in done:
        folder = layout.artifact(planned.stage.name)
        report = verify(folder, model=starting_point(job, planned)[0], facts=plan.facts, world=plan.world)
        problems += [f"{folder}: {problem}" for problem in report.problems]
        reports[planned.stage.name] = {**report.summary(), "problems": list(report.problems)}
        if not as_json and not report.problems:
            job.reporter.phase("verify", f"{planned.stage.name}: {describe(report)}")
    if as_json and job.runtime.leads:
        print(json.dumps(reports))
    if problems:
        raise VerificationError("\n".join(problems))


ACTIONS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "verify": check,
    "inspect": inspect,
    "merge": merge,
    "predict": predict,
    "replay": replay,
    "probe": probe,
    "gradients": gradients,
    "read": read,
    "advise": look,
    "soup": soup,
    "tasks": tasks,
    "publish": prepare,
    "examine": examine,
}


def _start(
    plan: Plan,
    layout: RunLayout,
    runtime: runtimes.Runtime,
    *,
    with_data: bool = True,
    life: Life | None = None,
) -> tuple[Job, Judge]:
    logging_steps = plan.recipe.train.logging_steps
    if plan.recipe.train.report_to:
        runtime.accelerator.init_trackers(plan.recipe.name, config=facts_of(plan))

    def log(values: Mapping[str, float], step: int) -> None:
        runtime.accelerator.log(dict(values), step=step)

    counted = "rows" if plan.recipe.model.task in WITHOUT_TEXT else "tok"
    reporter = Reporter(
        layout,
        rank=runtime.rank,
        logging_steps=logging_steps,
        unit=counted,
        log=log,
        patient=plan.recipe.train.on_save_failure == "continue",
    )
    reporter.said("start", fingerprint=plan.fingerprint, versions=plan.versions)
    processor = load_processor(plan.recipe.model, plan.facts)
    examples = load_examples(plan, layout, runtime, processor, reporter) if with_data else {}
    life = life or Life()
    stream = load_stream(plan, layout, runtime, processor, reporter, life.pulse) if with_data else None
    job = Job(plan, layout, runtime, reporter, processor, examples, life, stream)
    return job, Judge(plan, layout, runtime, processor, examples)


def _needs_base(plan: Plan, layout: RunLayout) -> bool:
    first_is_done = bool(plan.stages) and finished(layout, plan.stages[0].stage.name)
    return not _measured(layout, "base") or not first_is_done


def _fresh_base(plan: Plan) -> nn.Module:
    head = plan.stages[0].stage.head if plan.stages else None
    return load_base(plan.recipe.model, plan.facts, head=head, world=plan.world, seed=plan.seed)


def _measure_base(judge: Judge, fresh: nn.Module | None) -> tuple[Measurement, ...]:
    plan = judge.plan
    usable = _headed(plan, fresh)
    if usable is not None:
        usable.to(judge.runtime.device)
    arm = base_arm(judge, usable)
    standing.at_an_end(judge, arm, "base")
    return judge.score(arm)


def _headed(plan: Plan, fresh: nn.Module | None) -> nn.Module | None:
    """The base itself, where it can answer; `None` where its head for the classes is yet to be trained."""
    pooled = bool(plan.stages) and plan.stages[0].stage.head.kind == "pooled"
    return None if (plan.facts.labels and plan.facts.head_is_new) or pooled else fresh


def _tasks(
    job: Job, arm: str, module: nn.Module | None, stage: str | None, *, again: bool = False
) -> tuple[str, ...]:
    """Scores the recipe's tasks that aren't measured yet, or all of them again; gives those that failed."""
    asked = job.plan.recipe.evaluate
    if not asked.tasks:
        return ()
    if module is not None:
        module.to(job.runtime.device).eval()
    done = frozenset() if again else frozenset(m.suite for m in _measured(job.layout, arm))
    return score_tasks(job, asked, arm, module, stage, done=done).failures


def _measured(layout: RunLayout, arm: str) -> tuple[Measurement, ...]:
    rows = [Measurement.model_validate(row) for row in read_lines(layout.measurements) if row["arm"] == arm]
    return tuple({(m.suite, m.metric): m for m in rows}.values())


def _publish_result(layout: RunLayout, stage: str) -> None:
    """Puts the last stage's artifact at the run's front door."""
    link = layout.root / ".adapter.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(layout.artifact(stage).relative_to(layout.root))
    link.replace(layout.adapter)
    manifest = read_manifest(layout.adapter)
    write_json(layout.result, {"stage": stage, "kind": manifest["kind"], "artifact": layout.adapter.name})


def _say_scores(
    reporter: Reporter, arm: str, made: Sequence[Measurement], before: Sequence[Measurement] = ()
) -> None:
    known = {(m.suite, m.metric): m.value for m in before}
    for suite in dict.fromkeys(m.suite for m in made):
        parts = []
        for m in (m for m in made if m.suite == suite):
            old = known.get((suite, m.metric))
            change = "" if old is None else f" ({m.value - old:+.4g})"
            parts.append(f"{m.metric} {m.value:.4g}{change}")
        how = next(m for m in made if m.suite == suite)
        reporter.phase(arm, f"{suite} {', '.join(parts)}   [{how.predictor}, {how.n:,} items]")
