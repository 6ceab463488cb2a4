"""The whole module on every process; with several, gradients are summed by torch's data parallelism."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from tlscale.engine.backend import MakeOptimizer, OptimizerState, put, statistics, trainable
from tlscale.engine.optim import forget_resting
from tlscale.engine.runtime import Runtime
from tlscale.planning.types import PlannedStage


class Replicated:
    """One process, or data parallelism."""

    sharded = False

    def __init__(
        self, module: nn.Module, planned: PlannedStage, runtime: Runtime, make: MakeOptimizer
    ) -> None:
        self._plain, self._accelerator, self._world = module, runtime.accelerator, runtime.world
        self._max_grad_norm = planned.stage.update.max_grad_norm
        self._own = make(module)
        _leave_alone(module)
        self.module: nn.Module
        self.optimizer: Optimizer = self._own
        # the module is where it trains; see `Runtime.device`
        self.module, self._prepared = self._accelerator.prepare(
            module, self._own, device_placement=[False, False]
        )

    def passing(self, *, last: bool) -> AbstractContextManager[Any]:
        waiting: AbstractContextManager[Any] = (
            nullcontext() if last else self._accelerator.no_sync(self.module)
        )
        return waiting

    def backward(self, loss: Tensor) -> None:
        # Data parallelism averages gradients over processes; the sum is what is wanted.
        self._accelerator.backward(loss * self._world)

    def step(self) -> float:
        forget_resting(self.optimizer)
        parameters = list(trainable(self.module).values())
        norm = self._accelerator.clip_grad_norm_(parameters, self._max_grad_norm or math.inf)
        if math.isfinite(float(norm)) or self._accelerator.scaler is not None:
            self._prepared.step()
        return float(norm)

    def zero_grad(self) -> None:
        self._prepared.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        found = {name: p.detach() for name, p in trainable(self._plain).items()}
        return found | statistics(self._plain)

    def whole(self) -> dict[str, Tensor]:
        return dict(self._plain.state_dict())

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        put(self.tensors(), tensors)

    def optimizer_state(self) -> OptimizerState:
        return {name: dict(self._own.state[p]) for name, p in trainable(self._plain).items()}

    def load_optimizer_state(self, state: OptimizerState) -> None:
        for name, parameter in trainable(self._plain).items():
            self._own.state[parameter] = {
                key: value.to(device=None if key == "step" else parameter.device).clone()
                for key, value in state[name].items()
            }

    def scaler_state(self) -> dict[str, Any]:
        scaler = self._accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    def load_scaler_state(self, state: Mapping[str, Any]) -> None:
        if state:
            self._accelerator.scaler.load_state_dict(dict(state))

    def close(self) -> None:
        self.zero_grad()
        self.module = self._plain


def _leave_alone(module: nn.Module) -> None:
    """Has data parallelism exchange only what training changes.

    Every process has loaded the frozen rest from the same files. Sent out all the same, it would be written
    over where it lies, and pages that processes of a machine share with the file would become their own.
    """
    changes = trainable(module).keys() | statistics(module).keys()
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    leave: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    leave(module, [name for name in names if name not in changes])
