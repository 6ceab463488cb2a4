"""A finished run's result in one process, on whatever device is here; nothing is added to its records."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import nn

from tlscale.engine import runtime as runtimes
from tlscale.errors import UsageError
from tlscale.models.load import load_base, load_processor
from tlscale.planning.types import Plan
from tlscale.runs.layout import RunLayout
from tlscale.worker.chain import Job, finished
from tlscale.worker.console import Reporter
from tlscale.worker.stages import restored


def alone(plan: Plan, layout: RunLayout) -> Job:
    """A job for using a result: the plan's own, in a single process without trackers.

    A result that was trained on a GPU is used on the CPU where there is none.
    """
    device = plan.world.device
    if device == "cuda" and not torch.cuda.is_available():
        note(f"planned for a GPU, and torch sees none: this runs on the CPU in {plan.world.dtype}")
        device = "cpu"
    train = plan.recipe.train.model_copy(update={"report_to": ()})
    here = plan.model_copy(
        update={
            "world": plan.world.model_copy(update={"device": device, "processes": 1}),
            "recipe": plan.recipe.model_copy(update={"train": train}),
        }
    )
    runtime = runtimes.start(here, layout.trackers)
    reporter = Reporter(layout, rank=runtime.rank, logging_steps=1, unit="rows", log=_nowhere)
    processor = load_processor(plan.recipe.model, plan.facts)
    return Job(here, layout, runtime, reporter, processor, {})


def result(job: Job) -> nn.Module:
    """The last stage's result on the job's device; for a run without training, the base.

    Raises:
        UsageError: the last stage has left no result yet.
    """
    plan = job.plan
    if not plan.stages:
        base = load_base(plan.recipe.model, plan.facts, head=None, world=plan.world, seed=plan.seed)
        return base.to(job.runtime.device)
    last = plan.stages[-1].stage.name
    if not finished(job.layout, last):
        raise UsageError(
            f"{job.layout.root}: stage {last} has left no result yet; start the same recipe again, and the "
            "run goes on where it stopped"
        )
    return restored(job, job.plan.stages[-1])


def note(text: str) -> None:
    """Something to know that is no part of the answer: to stderr."""
    print(f"note      {text}", file=sys.stderr, flush=True)


def _nowhere(values: Mapping[str, float], step: int) -> None:
    """Nothing is logged while a result is used."""
