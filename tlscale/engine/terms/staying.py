"""Terms that keep weights near where the stage began: L2-SP and elastic weight consolidation.

Both act on the effective change of each weight (for LoRA the product BA), so they mean the same for an
adapter as for the weights themselves. A head that is new counts for nothing: it has nowhere to stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlscale.data.examples import Example
from tlscale.engine.objectives import Objective, Setting, rows_in, task_loss
from tlscale.engine.view import TRAIN, Batches, View
from tlscale.errors import PlanError
from tlscale.models.shifts import Shift, shifts

WHOLE = ("single", "ddp")


def _kept(setting: Setting, term: str) -> dict[str, tuple[nn.Parameter, Shift]]:
    backend = setting.runtime.planned.backend
    if backend not in WHOLE:
        raise PlanError(
            f"train.objective.{term}: needs whole weights on every process, and {backend} shards them; use "
            "hardware.sharding: none, or kl_to_base or replay"
        )
    return shifts(setting.module, with_head=not setting.new_head)


def penalty(value_of: Callable[[], Tensor]) -> Objective:
    """A term that doesn't depend on the rows: its share of a step is that of the rows seen here."""

    def total(view: View) -> Tensor:
        return value_of() * rows_in(view.batches)

    def count(batches: Batches) -> float:
        return rows_in(batches)

    return Objective(total, count)


def make_l2_sp(options: Mapping[str, Any], setting: Setting) -> Objective:
    """L2-SP (Li et al. 2018, arXiv:1802.01483): half the squared distance from the start."""
    moved = [shift for _, shift in _kept(setting, "l2_sp").values()]
    return penalty(lambda: 0.5 * torch.stack([shift().float().square().sum() for shift in moved]).sum())


def make_ewc(options: Mapping[str, Any], setting: Setting) -> Objective:
    """EWC (Kirkpatrick et al. 2017, arXiv:1612.00796): the same, weighted by Fisher information.

    The information is the diagonal one of the base on rows of data.replay: the mean squared gradient of
    the loss of a row, scaled to a mean of 1 over all weights, so that `weight` compares with L2-SP's.
    """
    kept = _kept(setting, "ewc")
    rows = setting.streams.get("replay", ())
    most = min(len(rows), int(options["rows"]))
    if not most:
        raise PlanError("train.objective.ewc: needs rows; give data.replay")
    chosen = [rows[index * len(rows) // most] for index in range(most)]
    information = fisher(setting, {name: weight for name, (weight, _) in kept.items()}, chosen)
    scale = sum(float(f.sum()) for f in information.values()) / sum(f.numel() for f in information.values())
    weighted = [(information[name] / max(scale, 1e-30), shift) for name, (_, shift) in kept.items()]
    return penalty(lambda: 0.5 * torch.stack([(f * d().float().square()).sum() for f, d in weighted]).sum())


def fisher(
    setting: Setting, weights: Mapping[str, nn.Parameter], rows: Sequence[Example]
) -> dict[str, Tensor]:
    """Diagonal empirical Fisher information of `weights`: the mean over `rows` of squared gradients.

    Every process looks at the same rows, so all get the same. Weights that don't train are asked for
    gradients here, and left as they were.

    Raises:
        PlanError: a weight is quantized: it has no gradient.
    """
    before = {name: weight.requires_grad for name, weight in weights.items()}
    for name, weight in weights.items():
        if not weight.is_floating_point():
            raise PlanError(f"train.objective.ewc: {name} is quantized; set model.quantization to none")
        weight.requires_grad_(True)
    found = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    training = setting.module.training
    setting.module.eval()
    for row in rows:
        batch = {k: v.to(setting.runtime.device) for k, v in setting.collate([row]).items()}
        loss = task_loss(View(setting.module, {TRAIN: batch}), TRAIN, 0.0)
        slopes = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, slope in zip(weights, slopes, strict=True):
            if slope is not None:
                found[name] += slope.float().square() / len(rows)
    setting.module.train(training)
    for name, weight in weights.items():
        weight.requires_grad_(before[name])
    return found
