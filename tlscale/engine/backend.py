"""What the loop asks of a way to train: one process, data parallel, or sharded.

The loop, checkpoints and objectives speak to a `Session` and never ask which backend it is. A session is
made once for a stage, by `begin`, and lives as long as the stage trains.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tlscale.engine.runtime import Runtime
from tlscale.planning.types import Backend, PlannedStage

MakeOptimizer = Callable[[nn.Module], Optimizer]
OptimizerState = dict[str, dict[str, Tensor]]
"""Parameter name -> name of a state (exp_avg, exp_avg_sq, step) -> the full tensor, float32."""

OPENERS: dict[Backend, str] = {
    "single": "tlscale.engine.backends.replicated:Replicated",
    "ddp": "tlscale.engine.backends.replicated:Replicated",
    "fsdp2": "tlscale.engine.backends.fsdp2:Fsdp2",
    "zero1": "tlscale.engine.backends.zero:Zero",
    "zero2": "tlscale.engine.backends.zero:Zero",
    "zero3": "tlscale.engine.backends.zero:Zero",
}


class Session(Protocol):
    """A module under training.

    Methods marked collective must be called by all processes, in the same order.
    """

    @property
    def module(self) -> nn.Module:
        """What to call for a forward pass, in training and in evaluation."""

    @property
    def optimizer(self) -> Optimizer:
        """Holds the groups whose learning rates a schedule sets; stepped by `step` alone."""

    @property
    def sharded(self) -> bool:
        """Whether a forward pass is collective.

        Then all processes run as many passes, in evaluation too, and `tensors` and `optimizer_state` are
        complete on the leading process and empty on the others. Otherwise they are complete on each.
        """

    def passing(self, *, last: bool) -> AbstractContextManager[Any]:
        """Surrounds the forward and backward pass of one micro-batch; `last` is that of a step."""

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of `loss`: this process's part of a sum over all processes. Collective."""

    def step(self) -> float:
        """Clips gradients as planned and updates; returns the norm before clipping. Collective.

        A gradient that isn't finite updates nothing.
        """

    def zero_grad(self) -> None:
        """Forgets the gradients of the last step."""

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes, in full, by parameter name: weights and running statistics.

        Collective. Live tensors where nothing is sharded, copies on the CPU otherwise.
        """

    def whole(self) -> dict[str, Tensor]:
        """The module's whole state dict in full, under the same terms as `tensors`. Collective."""

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts what `tensors` gave back; every process gives all of it. Collective."""

    def optimizer_state(self) -> OptimizerState:
        """The optimizer's averages in full, independent of backend and world size. Collective."""

    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Puts what `optimizer_state` gave back, under any backend; every process gives all. Collective."""

    def scaler_state(self) -> dict[str, Any]:
        """Of the loss scaling that float16 needs, as plain values; empty elsewhere."""

    def load_scaler_state(self, state: Mapping[str, Any]) -> None:
        """Puts what `scaler_state` gave back."""

    def close(self) -> None:
        """Lets go of what only training needs.

        The module can still be run, unless it is shared out: then its weights are gone.
        """


def begin(module: nn.Module, planned: PlannedStage, runtime: Runtime, make: MakeOptimizer) -> Session:
    """Readies `module` for training under the planned backend.

    Args:
        module: With its adapter and its decisions; it is changed in place.
        planned: Gives the batch, which DeepSpeed wants to know.
        runtime: The live processes.
        make: Makes the optimizer of a module; called after the module is sharded, where that is needed.
    """
    place, _, name = OPENERS[runtime.planned.backend].partition(":")
    session: Session = getattr(importlib.import_module(place), name)(module, planned, runtime, make)
    return session


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """Running statistics of normalization, which training changes without gradients."""
    return {n: b for n, b in module.named_buffers() if n.endswith(("running_mean", "running_var"))}


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def put(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copies each of `tensors` over the target of its name."""
    for name, value in tensors.items():
        targets[name].copy_(value)
