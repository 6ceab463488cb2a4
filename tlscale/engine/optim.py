"""The optimizer over groups of equal learning rate and decay, and the shape of the learning rate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from tlscale.planning.types import Schedule, Update

MOMENTUM = 0.9  # of SGD
LOWEST = 1 / 32  # of the peak, where the slanted triangle begins and ends (Howard and Ruder 2018)


def make_optimizer(
    module: nn.Module,
    scales: Mapping[str, float],
    update: Update,
    first_steps: Mapping[str, int] | None = None,
) -> Optimizer:
    """AdamW or SGD over the trainable parameters named in `scales` (live name to learning-rate factor).

    Vectors (biases, norms) are not decayed, as is usual since Loshchilov and Hutter 2019
    (arXiv:1711.05101). AdamW's decay is theirs; SGD's is added to the gradient, so that it goes to the
    minimum of the loss and half of the decay times the squared norm. `first_steps` names those that rest
    until a step; their groups are there from the start, since sharding and data parallelism fix them
    before training.
    """
    groups: dict[tuple[int, float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            # a weight that ZeRO-3 has shared out looks like an empty vector
            shape = getattr(parameter, "ds_shape", parameter.shape)
            decay = update.weight_decay if len(shape) > 1 else 0.0
            groups[-(first_steps or {}).get(name, 0), scales[name], decay].append(parameter)
    made = [
        {
            "params": parameters,
            "lr": update.learning_rate * scale,
            "weight_decay": decay,
            "from_step": -later,
        }
        for (later, scale, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if update.optim == "sgd":
        return SGD(made, lr=update.learning_rate, momentum=MOMENTUM)
    return AdamW(made, lr=update.learning_rate, betas=update.betas)


def make_schedule(optimizer: Optimizer, schedule: Schedule, steps: int) -> LRScheduler:
    """Warm-up over `warmup_ratio` of `steps`, then the shape; 0 for groups that rest."""
    # a run of one step would otherwise be warm-up alone, at rate 0
    warmup = min(math.ceil(schedule.warmup_ratio * steps), steps - 1)
    shape = partial(SHAPES[schedule.kind], steps=steps, warmup=warmup)
    groups: list[Callable[[int], float]] = [
        partial(_awake, first=group.get("from_step", 0), shape=shape) for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, groups)


def rests(group: Mapping[str, Any]) -> bool:
    """Whether a group waits for the step at which it joins."""
    return bool(group.get("from_step", 0) > 0 and group["lr"] == 0.0)


def forget_resting(optimizer: Optimizer) -> None:
    """Drops the gradients of groups that rest, so that they count neither in clipping nor in averages."""
    for group in optimizer.param_groups:
        if rests(group):
            for parameter in group["params"]:
                parameter.grad = None


def _awake(step: int, *, first: int, shape: Callable[[int], float]) -> float:
    return shape(step) if step >= first else 0.0


def _linear(step: int, *, steps: int, warmup: int) -> float:
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (steps - step) / max(1, steps - warmup))


def _cosine(step: int, *, steps: int, warmup: int) -> float:
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def _constant(step: int, *, steps: int, warmup: int) -> float:
    return step / max(1, warmup) if step < warmup else 1.0


def _slanted(step: int, *, steps: int, warmup: int) -> float:
    """Up from a 32nd of the peak over the warm-up, and down to it over the rest (arXiv:1801.06146)."""
    part = step / warmup if step < warmup else (steps - step) / max(1, steps - warmup)
    return LOWEST + (1 - LOWEST) * max(0.0, part)


SHAPES: Mapping[str, Callable[..., float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
    "slanted_triangular": _slanted,
}
