"""AdamW over groups of equal learning rate and decay, and the shape of the learning rate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from tlscale.planning.types import Schedule, Update


def make_optimizer(module: nn.Module, scales: Mapping[str, float], update: Update) -> AdamW:
    """AdamW over the trainable parameters named in `scales` (live name to learning-rate factor).

    Vectors (biases, norms) are not decayed, as is usual since Loshchilov and Hutter 2019
    (arXiv:1711.05101).
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = update.weight_decay if parameter.dim() > 1 else 0.0
            groups[scales[name], decay].append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": update.learning_rate * scale, "weight_decay": decay}
            for (scale, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=update.learning_rate,
        betas=update.betas,
    )


def make_schedule(optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int) -> LRScheduler:
    """Warm-up over `warmup_ratio` of `steps`, then the shape; `constant` keeps the peak."""
    kind = "constant_with_warmup" if schedule.kind == "constant" else schedule.kind
    made: LRScheduler = get_scheduler(
        kind,
        optimizer,
        # a run of one step would otherwise be warm-up alone, at rate 0
        num_warmup_steps=min(math.ceil(schedule.warmup_ratio * steps), steps - 1),
        num_training_steps=steps,
    )
    return made
