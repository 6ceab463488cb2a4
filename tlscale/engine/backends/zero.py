"""DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054): what processes hold alike is shared out.

Stage 1 shares out the optimizer's averages, stage 2 gradients too, stage 3 weights too. DeepSpeed itself
is told of one pass per step; which pass is a step's last is said pass by pass, so that steps may have
different numbers of passes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tlscale.engine import launched, pages
from tlscale.engine.backend import MakeOptimizer, OptimizerState, put, statistics, trainable
from tlscale.engine.backends.averages import Averages, stop_gradients_of_resting
from tlscale.engine.runtime import Runtime
from tlscale.errors import PlanError
from tlscale.models.names import transformers_model
from tlscale.models.quantize import is_quantized
from tlscale.planning.types import PlannedStage, World

# parameters below so many hidden widths stay whole, as transformers sets it
KEPT_WHOLE = 10
NEVER = 2**31
# On a CPU the memory of all processes is one, and there is no transfer to begin ahead: layers are gathered
# when their turn comes, and let go at once.
ONE_BY_ONE = {
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
    "stage3_prefetch_bucket_size": 0,
}
COMPILING = ("c++", "ninja")


def settings(world: World, *, micro: int, max_grad_norm: float) -> dict[str, Any]:
    """What the plan decides of DeepSpeed's configuration for a stage."""
    stage = int(world.sharding.removeprefix("zero"))
    sharing: dict[str, Any] = {"stage": stage}
    pinned = world.device == "cuda"
    if world.offload != "none":
        sharing["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
    if world.offload == "parameters":
        sharing["offload_param"] = {"device": "cpu", "pin_memory": pinned}
    made: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": sharing,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": NEVER,
    }
    if world.dtype == "bfloat16":
        # what trains is float32, and its gradients travel so; products run in bfloat16
        made["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return made


class Zero:
    """Stages 1 to 3."""

    def __init__(
        self, module: nn.Module, planned: PlannedStage, runtime: Runtime, make: MakeOptimizer
    ) -> None:
        deepspeed = _deepspeed(runtime.planned)
        self._plain, self._runtime = module, runtime
        self.sharded = runtime.planned.sharding == "zero3"
        decided = settings(
            runtime.planned,
            micro=planned.batch.micro,
            max_grad_norm=planned.stage.update.max_grad_norm,
        )
        config = launched.merged(decided, runtime.deepspeed)
        width = getattr(transformers_model(module).config, "hidden_size", 0)
        left_open = {"stage3_param_persistence_threshold": KEPT_WHOLE * width}
        if runtime.device.type == "cpu":
            left_open |= ONE_BY_ONE
        config["zero_optimization"] = left_open | config["zero_optimization"]
        if self.sharded:
            _share_out(deepspeed, module, config, runtime.device)
        self._inner = make(module)
        stop_gradients_of_resting(self._inner)
        with _aside(module) if not self.sharded else nullcontext():
            self._engine, self._outer, _, _ = deepspeed.initialize(
                model=module, optimizer=self._inner, config=config, dist_init_required=False
            )
        self.module: nn.Module = self._engine
        self.optimizer: Optimizer = self._inner
        self._averages = Averages(self._outer, self._inner, sharded=self.sharded)

    def passing(self, *, last: bool) -> AbstractContextManager[Any]:
        return self._pass(last)

    @contextmanager
    def _pass(self, last: bool) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed averages gradients over processes; the sum is what is wanted.
        self._engine.backward(loss * self._runtime.world, scale_wrt_gas=False)

    def step(self) -> float:
        self._engine.step()
        self._averages.restart_resting()
        return float(self._engine.get_global_grad_norm())

    def zero_grad(self) -> None:
        """DeepSpeed forgets them after each step by itself."""

    def tensors(self) -> dict[str, Tensor]:
        live = trainable(self._plain)
        if self.sharded:
            return self._leading(live) | statistics(self._plain)
        return {name: p.detach() for name, p in live.items()} | statistics(self._plain)

    def whole(self) -> dict[str, Tensor]:
        if not self.sharded:
            return dict(self._plain.state_dict())
        tied = dict(self._plain.named_parameters(remove_duplicate=False))
        buffers = {n: b for n, b in self._plain.state_dict().items() if n not in tied}
        return self._leading(tied) | buffers

    def _leading(self, live: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Full copies on the CPU of the leading process, one at a time; one for all names of a weight."""
        import deepspeed

        made: dict[nn.Parameter, Tensor] = {}
        for parameter in dict.fromkeys(live.values()):
            with deepspeed.zero.GatheredParameters([parameter]):
                if self._runtime.leads:
                    made[parameter] = parameter.detach().cpu().clone()
        return {name: made[parameter] for name, parameter in live.items() if parameter in made}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        import deepspeed

        live = trainable(self._plain)
        for name, parameter in live.items():
            if self.sharded:
                with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                    parameter.copy_(tensors[name])
            else:
                parameter.copy_(tensors[name])
        put(statistics(self._plain), {n: t for n, t in tensors.items() if n not in live})
        self._outer.refresh_fp32_params()

    def optimizer_state(self) -> OptimizerState:
        everywhere = self._runtime.leads or not self.sharded
        return self._averages.read(trainable(self._plain), keep=everywhere)

    def load_optimizer_state(self, state: OptimizerState) -> None:
        self._averages.put(trainable(self._plain), state, self._runtime)

    def scaler_state(self) -> dict[str, Any]:
        return {}

    def load_scaler_state(self, state: Mapping[str, Any]) -> None:
        """There is none: float16 is refused with sharding."""

    def close(self) -> None:
        self.module = self._plain
        if self.sharded:
            pages.emptied(getattr(p, "ds_tensor", p.detach()) for p in self._plain.parameters())


def _share_out(deepspeed: Any, module: nn.Module, config: dict[str, Any], device: torch.device) -> None:
    """Divides the weights over the processes, layer by layer, so that no device ever holds the whole.

    DeepSpeed sends each weight to all and writes it over where it lies. Where that is a page of the file,
    the page would become the process's own, for as long as anything of the file is in use.
    """
    if device.type == "cpu":
        pages.give_back_freed()
    # what a layer consists of comes after it
    for part in reversed(list(module.modules())):
        if next(part.parameters(recurse=False), None) is None:
            continue
        before = []
        for parameter in part.parameters(recurse=False) if device.type == "cpu" else ():
            if not (hasattr(parameter, "ds_id") or is_quantized(parameter)):
                before.append(parameter.data)
                parameter.data = parameter.data.clone()
        deepspeed.zero.Init(module=part, config_dict_or_path=config)
        pages.let_go(before)


@contextmanager
def _aside(module: nn.Module) -> Iterator[None]:
    """Puts one number in place of each frozen weight, which DeepSpeed would send to all when it begins.

    Every process has loaded them from the same files. Written over where they lie, pages that processes of
    a machine share with the file would become their own.
    """
    frozen = [p for p in module.parameters() if not (p.requires_grad or is_quantized(p))]
    kept = [p.data for p in frozen]
    for parameter in frozen:
        parameter.data = parameter.new_zeros(1)
    try:
        yield
    finally:
        for parameter, data in zip(frozen, kept, strict=True):
            parameter.data = data


def _deepspeed(world: World) -> Any:
    """DeepSpeed, joined to the process group that is already there.

    Raises:
        PlanError: it can't be imported, or lacks what it compiles itself with.
    """
    where = f"hardware.sharding {world.sharding}: "
    try:
        import deepspeed
    except ImportError as error:
        raise PlanError(
            f"{where}deepspeed can't be imported ({error}); "
            'pip install "tlscale[deepspeed]", or set hardware.sharding=fsdp2'
        ) from error
    lacking = [name for name in COMPILING if shutil.which(name) is None]
    if world.device == "cpu" and lacking:
        raise PlanError(
            f"{where}DeepSpeed compiles a part of itself at its first start on a CPU, and there is no "
            f"{' and no '.join(lacking)} here; install g++, or set hardware.sharding=fsdp2"
        )
    # it prints what it has compiled
    with redirect_stdout(sys.stderr):
        deepspeed.init_distributed(dist_init_required=False, verbose=False)
    return deepspeed
