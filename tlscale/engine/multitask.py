"""Several tasks in one step: the loss of each on its own classes, and how they are balanced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from tlscale.engine.objectives import Learned, Objective, Setting, Terms, rows_in
from tlscale.engine.view import TRAIN, Batches, View
from tlscale.models.taskheads import Sizes, spans
from tlscale.planning.types import Tasks


def task_loss_of(logits: Tensor, labels: Tensor, span: tuple[int, int], smoothing: float) -> Tensor:
    """Summed cross-entropy of the rows whose label is in `span`, over the classes of `span` alone."""
    first, end = span
    mine = (labels >= first) & (labels < end)
    return functional.cross_entropy(
        logits[mine, first:end], labels[mine] - first, reduction="sum", label_smoothing=smoothing
    )


def together(sizes: Sizes, smoothing: float) -> Objective:
    """The loss of every row over the classes of its own task, all rows alike."""

    def total(view: View) -> Tensor:
        parts = [task_loss_of(view.logits(), view.labels(), span, smoothing) for span in spans(sizes)]
        return torch.stack(parts).sum()

    return Objective(total, rows_in)


def apart(sizes: Sizes, smoothing: float) -> list[Objective]:
    """The same as one term for each task, to be divided by that task's own rows."""
    return [_one(span, smoothing) for span in spans(sizes)]


def _one(span: tuple[int, int], smoothing: float) -> Objective:
    def total(view: View) -> Tensor:
        return task_loss_of(view.logits(), view.labels(), span, smoothing)

    def count(batches: Batches) -> float:
        if TRAIN not in batches:
            return 0.0
        labels: Tensor = batches[TRAIN]["labels"]
        return float(((labels >= span[0]) & (labels < span[1])).sum())

    return Objective(total, count)


def by_task(terms: Terms, setting: Setting) -> tuple[Terms, Terms]:
    """`terms` to measure by and to train on, where a row is answered by the classes of its task alone.

    The first term, the task's own loss, is taken apart where that is asked.
    """
    tasks = setting.planned.stage.tasks
    if tasks is None:
        return terms, terms
    (weight, _), *others = terms
    smoothing = setting.planned.stage.objective[0].options.get("label_smoothing", 0.0)
    assert isinstance(smoothing, float)
    measured = [(weight, together(tasks.sizes, smoothing)), *others]
    if tasks.balance == "rows":
        return measured, measured
    each = apart(tasks.sizes, smoothing)
    if tasks.balance == "uncertainty":
        each = uncertain(each, tasks, setting)
    return measured, [*((weight / len(tasks.sizes), one) for one in each), *others]


def uncertain(each: list[Objective], tasks: Tasks, setting: Setting) -> list[Objective]:
    """Each loss times exp(-s), and s/2, with a learned s for each (Kendall et al. 2018, arXiv:1705.07115).

    s is the logarithm of the task's noise, squared, from 0. It has an optimizer of its own: an encoder's
    learning rate would leave it where it is.
    """
    learned = nn.ParameterList([torch.zeros(len(each), device=setting.runtime.device)])
    doubts = learned[0]
    optimizer = Adam([doubts], lr=tasks.uncertainty_rate, betas=(0.9, 0.99))
    world = setting.runtime.world

    def after() -> None:
        if doubts.grad is not None:
            if world > 1:
                # as for the model: each process has its part of the sum, times the number of processes
                dist.all_reduce(doubts.grad)
                doubts.grad /= world
            if bool(doubts.grad.isfinite().all()):
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def weighted(index: int) -> Objective:
        one = each[index]
        return Objective(lambda view: torch.exp(-doubts[index]) * one.total(view), one.count)

    kept: Mapping[str, Learned] = {"doubts": learned, "optimizer": optimizer}

    def price(view: View) -> Tensor:
        value: Tensor = doubts.sum() / 2 * rows_in(view.batches)
        return value

    told = Objective(price, rows_in, after=after, learned=kept)
    return [*(weighted(index) for index in range(len(each))), told]
