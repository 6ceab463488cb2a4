"""The averages of an AdamW whose parameters DeepSpeed keeps in flat tensors, by parameter.

DeepSpeed updates every parameter in every step. One that is to join later rests all the same: its gradient
is zero, so its averages stay zero, and its count of steps begins anew after each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tlscale.engine.backend import OptimizerState
from tlscale.engine.optim import rests
from tlscale.engine.runtime import Runtime

NAMES = ("exp_avg", "exp_avg_sq")


class Averages:
    """Reads and writes the averages of parameters; they are there from the start, as zeros.

    Stages 1 and 2 find those of a parameter only if all groups have them by the first step.

    Args:
        outer: DeepSpeed's optimizer.
        inner: Ours, which updates its flat tensors.
        sharded: Whether it is that of stage 3.
    """

    def __init__(self, outer: Any, inner: Optimizer, *, sharded: bool) -> None:
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        self._outer, self._inner, self._sharded = outer, inner, sharded
        for _, flat, parameters in self._flats():
            zeros = {name: torch.zeros_like(flat) for name in NAMES}
            inner.state[flat] = {"step": torch.zeros(()), **zeros}
            if not sharded:
                lazy_init_hp_params_optimizer_state(parameters, flat, inner.state)

    def _flats(self) -> Iterator[tuple[dict[str, Any], Tensor, list[nn.Parameter]]]:
        """Each group of the optimizer, a flat tensor that is updated by it, and the parameters in that."""
        outer, groups = self._outer, self._inner.param_groups
        if self._sharded:
            for index, parameters in enumerate(outer.fp16_groups):
                flat = outer.fp32_partitioned_groups_flat[index]
                yield groups[outer.sub_group_to_group_id[index]], flat, parameters
        else:
            yield from zip(groups, outer.single_partition_of_fp32_groups, outer.bit16_groups, strict=True)

    def restart_resting(self) -> None:
        """After a step: AdamW corrects its first steps by their number, which begins when a group joins."""
        for group, flat, _ in self._flats():
            if rests(group):
                self._inner.state[flat]["step"].zero_()

    def read(self, parameters: Mapping[str, nn.Parameter], *, keep: bool) -> OptimizerState:
        """The averages in full, of every parameter; empty where they aren't to be kept. Collective."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found: OptimizerState = {}
        names = {id(parameter): name for name, parameter in parameters.items()}
        for _, flat, inside in self._flats():
            for parameter in inside:
                full = {key: safe_get_full_optimizer_state(parameter, key) for key in NAMES}
                if keep:
                    shape = getattr(parameter, "ds_shape", parameter.shape)
                    made = {key: value.view(shape).cpu() for key, value in full.items()}
                    found[names[id(parameter)]] = made | {"step": self._inner.state[flat]["step"].clone()}
        return found

    def put(self, parameters: Mapping[str, nn.Parameter], state: OptimizerState, runtime: Runtime) -> None:
        """Writes averages that are given in full; what has none stays as it is."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        names = {id(parameter): name for name, parameter in parameters.items()}
        for _, flat, inside in self._flats():
            for parameter in inside:
                given = state.get(names[id(parameter)])
                if not given:
                    continue
                self._inner.state[flat]["step"].copy_(given["step"])
                for key in NAMES:
                    value = given[key].to(runtime.device)
                    if self._sharded:
                        safe_set_local_optimizer_state(parameter, _part(value, parameter, runtime), key)
                    else:
                        safe_set_full_optimizer_state(parameter, value, key)


def stop_gradients_of_resting(optimizer: Optimizer) -> None:
    """Makes gradients zero while their group rests; before DeepSpeed takes the parameters out of it."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["from_step"] else ():
            parameter.register_hook(partial(_unless_it_rests, group))


def _unless_it_rests(group: Mapping[str, Any], gradient: Tensor) -> Tensor:
    return torch.zeros_like(gradient) if rests(group) else gradient


def _part(value: Tensor, parameter: nn.Parameter, runtime: Runtime) -> Tensor:
    """This process's part of a full tensor, as stage 3 divides it: evenly, padded with zeros."""
    from deepspeed.utils import safe_get_local_fp32_param

    size = safe_get_local_fp32_param(parameter).numel()
    padded = value.new_zeros(size * runtime.world)
    padded[: value.numel()] = value.flatten()
    return padded[runtime.rank * size :][:size]
