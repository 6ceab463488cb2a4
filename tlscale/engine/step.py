"""One optimizer step over many micro-batches and processes, and the same sums without a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tlscale.data.examples import Example
from tlscale.engine.backend import Session
from tlscale.engine.gather import gathered
from tlscale.engine.objectives import Terms
from tlscale.engine.runtime import Runtime
from tlscale.engine.surgery import Apart, Operator, Summed
from tlscale.engine.view import TRAIN, Batches, View

Collate = Callable[[Sequence[Example]], Mapping[str, Any]]


@dataclass(frozen=True)
class Stepped:
    """The loss over all processes, the norm of the gradient before clipping, and whether it was used.

    `conflicts`: share of pairs of terms whose gradients point apart, where they are taken apart.
    """

    loss: float
    norm: float
    updated: bool = False
    conflicts: float | None = None


@dataclass(frozen=True)
class Beside:
    """What a step has besides its training rows.

    `streams` has this process's rows by stream, one list for each micro-batch, none of them empty;
    `progress` is the share of the stage's steps that are done.
    """

    streams: Mapping[str, Sequence[Sequence[Example]]] = field(default_factory=dict)
    progress: float = 0.0


def set_modes(module: nn.Module) -> None:
    """Training mode, but normalization whose parameters are frozen keeps its running statistics."""
    module.train()
    for part in module.modules():
        frozen = all(not p.requires_grad for p in part.parameters(recurse=False))
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and frozen:
            part.eval()


def on_device(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it on `device`."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    return {name: on_device(part, device) for name, part in value.items()}


def tokens_in(examples: Iterable[Example]) -> int:
    """Tokens that are no padding; for images and features, rows."""
    return sum(len(e.tokens or ()) + len(e.pair or ()) or 1 for e in examples)


def optimize(
    session: Session,
    micros: Sequence[Sequence[Example]],
    terms: Terms,
    *,
    filler: Example,
    collate: Collate,
    runtime: Runtime,
    beside: Beside | None = None,
    passed: Callable[[], None] = lambda: None,
    apart: bool = False,
    mixed: AbstractContextManager[None] | None = None,
) -> Stepped:
    """One optimizer step. `passed` is called as micro-batches and reductions go by.

    With `apart`, the terms' gradients are combined without what conflicts; all gradients are made inside
    `mixed`, with other weights than are updated (both on whole weights only).

    A micro-batch that has no example on this process runs `filler` with weight 0, since all processes
    must make as many passes: gradients, and with some backends weights, are exchanged in each.

    Each term is its sum over all micro-batches and processes divided by its count over the same, so
    any split of the same examples gives the same gradient. Gradients are left in place.

    Where the loss or the gradient is no finite number, nothing is updated.
    """
    session.zero_grad()
    beside = beside or Beside()
    with mixed or nullcontext():
        loss, conflicts = _gradients(
            session, micros, terms, filler=filler, collate=collate, runtime=runtime, beside=beside,
            passed=passed, apart=apart,
        )  # fmt: skip
    if not math.isfinite(loss):
        return Stepped(loss, math.nan)
    norm = session.step()
    # loss scaling, where there is any, overflows now and then, leaves the step out and scales less
    return Stepped(loss, norm, bool(session.scaler_state()) or math.isfinite(norm), conflicts)


def _gradients(
    session: Session,
    micros: Sequence[Sequence[Example]],
    terms: Terms,
    *,
    filler: Example,
    collate: Collate,
    runtime: Runtime,
    beside: Beside,
    passed: Callable[[], None],
    apart: bool,
) -> tuple[float, float | None]:
    """Leaves a step's gradients in place; gives its loss, and the share of conflicts between terms."""
    made = [_batches(micro or [filler], beside, index, collate) for index, micro in enumerate(micros)]
    # how much of each term this process has in each micro-batch, and how much all have in the step
    own = [_counts(terms, batches, bool(micro)) for batches, micro in zip(made, micros, strict=True)]
    counts = [max(1.0, n) for n in runtime.totals(*(sum(parts) for parts in zip(*own, strict=True)))]
    summed = torch.zeros((), device=runtime.device)
    operator: Operator = Apart(session) if apart else Summed(session)
    for index, (batches, micro) in enumerate(zip(made, micros, strict=True)):
        last = operator.exchanges and index == len(made) - 1
        with runtime.accelerator.autocast(), session.passing(last=last):
            view = _view(session.module, batches, beside, runtime, idle=not micro)
            summed += operator.add(_losses(terms, view, counts, own[index]))
        passed()
    for _, term in terms:
        term.after()
    loss_value = runtime.total(float(summed))
    passed()
    if not math.isfinite(loss_value):
        return loss_value, None
    return loss_value, operator.settle(runtime.world, beside.progress)


def _losses(terms: Terms, view: View, counts: Sequence[float], here: Sequence[float]) -> list[Tensor]:
    """Each term's share of the step's loss in one micro-batch; 0 where it has no rows here."""
    return [
        w * term.total(view) / n * (1.0 if own else 0.0)
        for (w, term), n, own in zip(terms, counts, here, strict=True)
    ]


def _batches(rows: Sequence[Example], beside: Beside, index: int, collate: Collate) -> Batches:
    return {
        TRAIN: collate(rows),
        **{name: collate(micros[index]) for name, micros in beside.streams.items()},
    }


def _view(module: nn.Module, batches: Batches, beside: Beside, runtime: Runtime, *, idle: bool) -> View:
    return View(
        module,
        on_device(batches, runtime.device),
        absent=frozenset({TRAIN}) if idle else frozenset(),
        gather=partial(gathered, runtime=runtime),
        progress=beside.progress,
        rank=runtime.rank,
    )


def _counts(terms: Terms, batches: Batches, has_rows: bool) -> list[float]:
    there = {name: batch for name, batch in batches.items() if has_rows or name != TRAIN}
    return [term.count(there) for _, term in terms]


@torch.no_grad()
def mean_objective(
    module: nn.Module,
    examples: Sequence[Example],
    terms: Terms,
    *,
    collate: Collate,
    runtime: Runtime,
    size: int,
    passed: Callable[[], None] = lambda: None,
) -> float:
    """The first of `terms`, the task's own, over `examples`, `size` rows at a time.

    Shared out over the processes. What else is optimized is no measure of the task.
    """
    mine = list(examples)[runtime.rank :: runtime.world]
    most = math.ceil(len(examples) / runtime.world)
    module.eval()
    (weight, term), total, count = terms[0], 0.0, 0.0
    for start in range(0, most, size):
        rows = mine[start : start + size]
        # all processes make as many passes, since with some backends a pass needs all of them
        batches = {TRAIN: collate(rows or [examples[0]])}
        with runtime.accelerator.autocast():
            found = float(term.total(View(module, on_device(batches, runtime.device))))
        total += found if rows else 0.0
        count += term.count(batches) if rows else 0.0
        passed()
    summed, counted = runtime.totals(total, count)
    return weight * summed / max(1.0, counted)
