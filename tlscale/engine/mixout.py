"""Mixout: in each step some of the weights are the ones that the stage began with.

Lee, Cho and Kang 2020 (arXiv:1909.11299). Where dropout mixes weights with zeros, this mixes them with the
pretrained ones, and so keeps them near: in a step a weight is its start with probability p, and otherwise
(w - p start) / (1 - p), so that w is expected.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tlscale.engine.backend import trainable
from tlscale.engine.objectives import Setting
from tlscale.errors import PlanError
from tlscale.models.names import HEAD, canonical

MATRIX = 2  # dimensions from which on a weight is mixed: vectors (biases, norms) are not


class Mixout:
    """Mixes `weights` with their values now.

    The mask is a function of `seed`, the step and the name alone: it is one for all micro-batches and
    processes of a step, and for a step that is done again.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], probability: float, seed: int) -> None:
        self._weights = dict(sorted(weights.items()))
        self._starts = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._probability, self._seed = probability, seed

    @contextmanager
    def mixed(self, step: int) -> Iterator[None]:
        """Mixed weights inside; afterwards those that train, to the bit, with the gradients of theirs."""
        masks = self.masks(step)
        running = {name: weight.detach().clone() for name, weight in self._weights.items()}
        with torch.no_grad():
            for name, weight in self._weights.items():
                start, p = self._starts[name], self._probability
                weight.copy_(torch.where(masks[name], (weight - p * start) / (1 - p), start))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._weights.items():
                    weight.copy_(running[name])
                    if weight.grad is not None:
                        weight.grad.mul_(masks[name]).div_(1 - self._probability)

    def masks(self, step: int) -> dict[str, Tensor]:
        """Which entries keep a step's own weights: bool, of each weight's shape."""
        made = {}
        for name, weight in self._weights.items():
            generator = torch.Generator(weight.device)
            generator.manual_seed(
                random.Random(f"mixout of {name}, {step} of {self._seed}").getrandbits(63)
            )
            drawn = torch.rand(weight.shape, generator=generator, device=weight.device)
            made[name] = drawn >= self._probability
        return made


def make_mixout(setting: Setting, seed: int) -> Mixout | None:
    """What the stage asks for; nothing at probability 0.

    Raises:
        PlanError: no matrix trains that was there before: a new head has nothing to be mixed with.
    """
    probability = setting.planned.stage.mixout
    if not probability:
        return None
    known = canonical(setting.module)
    weights = {
        name: weight
        for name, weight in trainable(setting.module).items()
        if weight.dim() >= MATRIX and not (setting.new_head and known[name].startswith(HEAD))
    }
    if not weights:
        raise PlanError(
            "train.mixout: no matrix of the base trains, and a new head has no start to be mixed with; use "
            "strategy kind: full or partial, or leave train.mixout out"
        )
    return Mixout(weights, probability, seed)
