"""The average of a stage's weights over its steps, which is validated and kept in place of the last ones.

Averages are of the weights themselves: right where a model answers by its weights, and wrong for factors of
them, since the mean of A times the mean of B is not the mean of BA. Such adapters are refused when planned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tlscale.engine.backend import Session
from tlscale.errors import PlanError
from tlscale.recipe.train import Averaging


class Average:
    """A running average of what training changes, in float32; the same on every process.

    Args:
        asked: Of kind `ema`, the newest weights count 1 - decay and all before them decay. Decay is at most
            (1 + t) / (10 + t) after t averages, so that a short run isn't held at its start. Of kind `swa`,
            all weights that are taken count alike (Izmailov et al. 2018, arXiv:1803.05407).
        steps: Of the stage; weights are taken after each `every` of them, counted back from the last.
    """

    def __init__(self, asked: Averaging, steps: int) -> None:
        self._asked, self._steps = asked, steps
        self._first = math.floor(asked.start * steps) if asked.kind == "swa" else 0
        self._taken = 0
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Counts the weights after `step`, where that is due."""
        if step <= self._first or (self._steps - step) % self._asked.every:
            return
        self._taken += 1
        if not self._mean:
            self._mean = {name: tensor.detach().clone().float() for name, tensor in tensors.items()}
            return
        share = 1 / self._taken if self._asked.kind == "swa" else 1 - self._decay()
        for name, mean in self._mean.items():
            mean.lerp_(tensors[name].float(), share)

    def _decay(self) -> float:
        return min(self._asked.decay, (1 + self._taken) / (10 + self._taken))

    def place_into(self, session: Session) -> None:
        """Leaves the average in the module; as it is where nothing was averaged yet. Collective."""
        if self._mean:
            session.load_tensors(self._mean)

    @contextmanager
    def in_place(self, session: Session) -> Iterator[None]:
        """The average in the module, and after that the weights that train, to the bit. Collective."""
        running = {name: tensor.detach().clone() for name, tensor in session.tensors().items()}
        self.place_into(session)
        yield
        session.load_tensors(running)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"taken": self._taken, "mean": self._mean}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Goes on where `state_dict` was."""
        self._taken = state_dict["taken"]
        device = next((tensor.device for tensor in self._mean.values()), None)
        self._mean = {name: tensor.to(device) for name, tensor in state_dict["mean"].items()}


def averaged(module: nn.Module, asked: Averaging | None, steps: int) -> Average | None:
    """The average that is asked for, over a stage of `steps` steps.

    Raises:
        PlanError: the model keeps running statistics of activations and trains what makes them: those of an
            average are not the average of those.
    """
    if asked is None:
        return None
    moving = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
        and part.track_running_stats
        and any(p.requires_grad for p in part.parameters(recurse=False))
    ]
    if moving:
        raise PlanError(
            f"train.averaging: {moving[0]} and {len(moving) - 1} more normalize by running statistics, and "
            "those of averaged weights are not the average of them; freeze their weights (strategy kind: "
            "partial, a rule with lr_scale: null), or leave train.averaging out"
        )
    return Average(asked, steps)
