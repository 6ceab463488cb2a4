"""What becomes of the gradients of several losses: their sum, or PCGrad, where none works against another.

Yu et al. 2020 (arXiv:2001.06782), algorithm 1: where two gradients point apart, each loses its part along
the other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tlscale.engine.backend import Session


def combined(gradients: Sequence[Tensor], generator: random.Random) -> tuple[Tensor, float]:
    """The sum of the gradients [weights] without their conflicts, and the share of pairs in conflict.

    The others of each are gone through in an order that `generator` draws. Gradients of 0 are in conflict
    with none.
    """
    total, conflicts = torch.zeros_like(gradients[0]), 0
    for index, own in enumerate(gradients):
        left = own.clone()
        others = [at for at in range(len(gradients)) if at != index]
        conflicts += sum(bool(own @ gradients[at] < 0) for at in others)
        generator.shuffle(others)
        for at in others:
            along = left @ gradients[at]
            if along < 0:
                left -= along / gradients[at].square().sum() * gradients[at]
        total += left
    pairs = len(gradients) * (len(gradients) - 1)
    return total, conflicts / max(1, pairs)


class Operator(Protocol):
    """Takes the losses of each micro-batch of a step, and leaves gradients on the weights."""

    @property
    def exchanges(self) -> bool:
        """Whether the last backward pass exchanges gradients between processes."""

    def add(self, losses: Sequence[Tensor]) -> Tensor:
        """Adds one micro-batch; gives its loss. The graph of `losses` is used up."""

    def settle(self, world: int, progress: float) -> float | None:
        """Leaves the gradients of all processes; the share of pairs in conflict, where that is known."""


@dataclass(frozen=True)
class Summed:
    """The gradient of the sum of the losses."""

    session: Session
    exchanges: bool = True

    def add(self, losses: Sequence[Tensor]) -> Tensor:
        loss = torch.stack(list(losses)).sum()
        self.session.backward(loss)
        return loss.detach()

    def settle(self, world: int, progress: float) -> float | None:
        return None


@dataclass(frozen=True)
class Apart:
    """The gradient of each loss with respect to what trains, summed over micro-batches."""

    session: Session
    sums: list[Tensor] = field(default_factory=list)
    exchanges: bool = False

    @property
    def _weights(self) -> list[nn.Parameter]:
        return [p for p in self.session.module.parameters() if p.requires_grad]

    def add(self, losses: Sequence[Tensor]) -> Tensor:
        weights = self._weights
        for index, loss in enumerate(losses):
            slopes: Sequence[Tensor | None] = [None] * len(weights)
            if loss.requires_grad:
                slopes = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            flat = torch.cat(
                [
                    (torch.zeros_like(w) if slope is None else slope).flatten()
                    for w, slope in zip(weights, slopes, strict=True)
                ]
            )
            if index < len(self.sums):
                self.sums[index] += flat
            else:
                self.sums.append(flat)
        return torch.stack(list(losses)).sum().detach()

    def settle(self, world: int, progress: float) -> float | None:
        if world > 1:
            for one in self.sums:
                dist.all_reduce(one)
        merged, conflicts = combined(self.sums, random.Random(f"at {progress}"))
        at = 0
        for weight in self._weights:
            weight.grad = merged[at : at + weight.numel()].view_as(weight).clone()
            at += weight.numel()
        return conflicts
