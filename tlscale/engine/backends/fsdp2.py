"""Fully sharded data parallelism by torch's own `fully_shard` (Zhao et al. 2023, arXiv:2304.11277).

Weights, gradients and optimizer states are shared out; each block is gathered for its own forward and
backward pass. Gradients are exchanged in every pass, so that accumulation holds no whole gradient.

On a CPU the memory of all processes of a machine is one, so more is done to hold little: pages of the
weights' file are let go part by part, and parts are gathered into the place where they are needed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from tlscale.engine import pages
from tlscale.engine.backend import MakeOptimizer, OptimizerState, put, statistics, trainable
from tlscale.engine.optim import forget_resting
from tlscale.engine.runtime import Runtime
from tlscale.planning.types import PlannedStage

# where an adapter keeps the layer that it is around
WRAPPED = ".base_layer"


class Fsdp2:
    """Shards each block of the network by itself, and the rest together."""

    sharded = True

    def __init__(
        self, module: nn.Module, planned: PlannedStage, runtime: Runtime, make: MakeOptimizer
    ) -> None:
        self._runtime = runtime
        self._max_grad_norm = planned.stage.update.max_grad_norm
        mesh = init_device_mesh(runtime.device.type, (runtime.world,))
        offload = CPUOffloadPolicy() if runtime.planned.offload == "parameters" else OffloadPolicy()
        on_cpu = runtime.device.type == "cpu"
        alone = ends(module)
        # one copy of such a page is all that the machine has, and gathering would make one for each process
        kept = {p for part in alone for p in part.parameters() if on_cpu and pages.of_a_file(p.detach())}
        if on_cpu:
            pages.give_back_freed()
        for part in (*blocks(module), *alone, module):
            mine = [p for p in part.parameters() if p not in kept]
            if not mine and part is not module:
                continue
            before = [p.detach() for p in mine]
            sharded = fully_shard(part, mesh=mesh, offload_policy=offload, ignored_params=kept)
            pages.let_go(before)
            if on_cpu:
                _hold_little(sharded)
        if hasattr(module, "generate"):
            register_fsdp_forward_method(module, "generate")
        self.module = module
        self.optimizer: Optimizer = make(module)

    def passing(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        # Gradients are averaged over processes; the sum is what is wanted.
        torch.autograd.backward(loss * self._runtime.world)

    def step(self) -> float:
        forget_resting(self.optimizer)
        parameters = list(trainable(self.module).values())
        norm = nn.utils.clip_grad_norm_(parameters, self._max_grad_norm or math.inf)
        whole = float(_full(norm))
        if math.isfinite(whole):
            self.optimizer.step()
        return whole

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        return self._leading(trainable(self.module)) | statistics(self.module)

    def whole(self) -> dict[str, Tensor]:
        return self._leading(self.module.state_dict(keep_vars=True))

    def _leading(self, live: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Full copies on the CPU of the leading process, one at a time; one for all names of a weight."""
        made: dict[Tensor, Tensor] = {}
        for tensor in dict.fromkeys(live.values()):
            full = _full(tensor.detach())
            if self._runtime.leads:
                made[tensor] = full.to("cpu", copy=True)
        return {name: made[tensor] for name, tensor in live.items() if tensor in made}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        live = trainable(self.module)
        put(live, {name: self._shared_out(tensors[name], p) for name, p in live.items()})
        put(statistics(self.module), {n: t for n, t in tensors.items() if n not in live})

    def optimizer_state(self) -> OptimizerState:
        found: OptimizerState = {}
        for name, parameter in trainable(self.module).items():
            full = {key: _full(value).cpu() for key, value in self.optimizer.state[parameter].items()}
            if self._runtime.leads:
                found[name] = full
        return found

    def load_optimizer_state(self, state: OptimizerState) -> None:
        for name, parameter in trainable(self.module).items():
            if name in state:
                self.optimizer.state[parameter] = {
                    key: value.clone() if key == "step" else self._shared_out(value, parameter)
                    for key, value in state[name].items()
                }

    def _shared_out(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """`value` divided over the processes as `parameter` is."""
        assert isinstance(parameter, DTensor)
        moved = value.to(parameter.device, parameter.dtype)
        return distribute_tensor(moved, parameter.device_mesh, parameter.placements)

    def scaler_state(self) -> dict[str, Any]:
        return {}

    def load_scaler_state(self, state: Mapping[str, Any]) -> None:
        """There is none: float16 is refused with sharding."""

    def close(self) -> None:
        self.zero_grad()
        parameters = self.module.parameters()
        pages.emptied(p.to_local() if isinstance(p, DTensor) else p.detach() for p in parameters)


def _hold_little(part: FSDPModule) -> None:
    """Gathers in place, and nothing ahead of its turn: there is no transfer on a CPU to begin early."""
    gather: Any = Broadcasts()
    part.set_custom_all_gather(gather)
    # named itself, it is there already; named nothing, the part before it would be gathered beside it
    part.set_modules_to_backward_prefetch([part])


class Broadcasts:
    """Gathers by one broadcast from each process, in place.

    gloo's own gathering makes two more copies of what it gathers.
    """

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: dist.ProcessGroup, async_op: bool = False
    ) -> None:
        parts = output_tensor.chunk(group.size())
        mine = parts[group.rank()]
        if mine.data_ptr() != input_tensor.data_ptr():
            mine.copy_(input_tensor)
        for rank, part in enumerate(parts):
            dist.broadcast(part, group=group, group_src=rank)


def blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network, from first to last; empty where it has none."""
    found: list[nn.Module] = []
    for part in module.modules():
        if isinstance(part, nn.ModuleList) and len(part) > 1 and len({type(child) for child in part}) == 1:
            nested = any(part in outer.modules() for outer in found)
            found += [] if nested else list(part)
    return found


def ends(module: nn.Module) -> list[nn.Module]:
    """Frozen embeddings and output layers outside the blocks; each is gathered for its own pass alone.

    A weight that several parts share, or that an adapter reads, stays with the rest.
    """
    inside = {part for block in blocks(module) for part in block.modules()}
    uses = Counter(p for part in module.modules() for p in part.parameters(recurse=False))
    found = []
    for name, part in module.named_modules():
        plain = type(part) in (nn.Embedding, nn.Linear) and not name.endswith(WRAPPED)
        if plain and part not in inside:
            alone = all(uses[p] == 1 and not p.requires_grad for p in part.parameters())
            found += [part] if alone else []
    return found


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
