"""One optimizer step over many micro-batches and processes, and the same sums without a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tlscale import plugins
from tlscale.data.examples import Example
from tlscale.engine.backend import Session
from tlscale.engine.objectives import Objective
from tlscale.engine.optim import forget_resting
from tlscale.engine.runtime import Runtime
from tlscale.errors import TlscaleError
from tlscale.planning.types import Stage

Collate = Callable[[Sequence[Example]], Mapping[str, Any]]
Terms = Sequence[tuple[float, Objective]]


def objectives(stage: Stage) -> Terms:
    """The stage's terms with their weights; plugins by name or as `module:function`."""
    return [
        (
            term.weight,
            plugins.resolve(term.name)
            if ":" in term.name
            else plugins.load("tlscale.objectives", term.name),
        )
        for term in stage.objective
    ]


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
) -> tuple[float, float]:
    """One optimizer step; returns the loss over all processes and the gradient norm before clipping.

    A micro-batch that has no example on this process runs `filler` with weight 0, since all processes
    must make as many passes: gradients, and with some backends weights, are exchanged in each.

    Each term is its sum over all micro-batches and processes divided by its count over the same, so
    any split of the same examples gives the same gradient. Gradients are left in place.

    Raises:
        TlscaleError: the loss is no longer a finite number; the examples are named.
    """
    session.zero_grad()
    made = [collate(micro or [filler]) for micro in micros]
    live = [batch for batch, micro in zip(made, micros, strict=True) if micro]
    counts = [max(1.0, runtime.total(sum(term.count(batch) for batch in live))) for _, term in terms]
    summed = torch.zeros((), device=runtime.device)
    for index, (batch, micro) in enumerate(zip(made, micros, strict=True)):
        with runtime.accelerator.autocast(), session.passing(last=index == len(made) - 1):
            moved = on_device(batch, runtime.device)
            parts = [
                w * term.total(session.module, moved) / n
                for (w, term), n in zip(terms, counts, strict=True)
            ]
            loss = torch.stack(parts).sum() * (1.0 if micro else 0.0)
            session.backward(loss)
        summed += loss.detach()
    loss_value = runtime.total(float(summed))
    if not math.isfinite(loss_value):
        rows = ", ".join(example.where for micro in micros for example in micro)
        raise TlscaleError(
            f"the loss became {loss_value}; lower train.learning_rate, or look at these rows: {rows[:400]}"
        )
    forget_resting(session.optimizer)
    return loss_value, session.step()


@torch.no_grad()
def mean_objective(
    module: nn.Module,
    examples: Sequence[Example],
    terms: Terms,
    *,
    collate: Collate,
    runtime: Runtime,
    size: int,
) -> float:
    """The weighted objective over `examples`, `size` rows at a time, shared out over the processes."""
    mine = list(examples)[runtime.rank :: runtime.world]
    most = math.ceil(len(examples) / runtime.world)
    module.eval()
    totals, counts = [0.0] * len(terms), [0.0] * len(terms)
    for start in range(0, most, size):
        rows = mine[start : start + size]
        # all processes make as many passes, since with some backends a pass needs all of them
        batch = collate(rows or [examples[0]])
        with runtime.accelerator.autocast():
            moved = on_device(batch, runtime.device)
            for index, (_, term) in enumerate(terms):
                total = float(term.total(module, moved))
                totals[index] += total if rows else 0.0
                counts[index] += term.count(batch) if rows else 0
    return sum(
        weight * runtime.total(total) / max(1.0, runtime.total(count))
        for (weight, _), total, count in zip(terms, totals, counts, strict=True)
    )
