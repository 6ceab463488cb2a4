"""The live processes: the only place that makes an `Accelerator`, and the check against the plan."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import gather_object, set_seed
from torch.distributed.rendezvous import rendezvous
from torch.utils.cpp_extension import get_default_build_root

from tlscale.engine import abandoned, launched, meeting
from tlscale.errors import PlanError, TlscaleError
from tlscale.planning.compile import versions
from tlscale.planning.types import Plan, World

PR_SET_PDEATHSIG = 1
KILOBYTE = 1024  # the unit of ru_maxrss on Linux


@dataclass(frozen=True)
class Runtime:
    """This process among the others."""

    accelerator: Accelerator
    device: torch.device
    rank: int
    world: int
    planned: World
    deepspeed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leads(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def peak_memory(self) -> int:
        """Most bytes that this process held so far: of the GPU, or of the machine's memory."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE

    def total(self, value: float) -> float:
        """The sum of `value` over all processes."""
        return self.totals(value)[0]

    def totals(self, *values: float) -> tuple[float, ...]:
        """The sum of each of `values` over all processes, in one exchange."""
        if self.world == 1:
            return values
        summed: Any = self.accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), reduction="sum"
        )
        return tuple(summed.tolist())

    def collect(self, rows: list[Any]) -> list[Any]:
        """The rows of all processes, in rank order, on every process."""
        return list(rows) if self.world == 1 else list(gather_object(rows))


def start(plan: Plan, trackers: Path) -> Runtime:
    """Joins the process group and asserts that the live world is the planned one.

    Raises:
        PlanError: an experiment tracker that the recipe names can't be imported.
        TlscaleError: the number of processes or the device differs from the plan, so that training on
            would give another result than the one asked for; or a machine is missing.
    """
    on_cpu = plan.world.device == "cpu"
    asked = launched.read(os.environ)
    contradiction = launched.contradiction(asked, plan.world)
    if contradiction:
        raise TlscaleError(contradiction)
    if not on_cpu and not torch.cuda.is_available():
        raise TlscaleError(
            "the plan is for a GPU, but torch sees none; make a new run with hardware.device=cpu"
        )
    if asked.processes > 1:
        _end_with_parent()
    _import_trackers(plan.recipe.train.report_to)
    if plan.world.sharding.startswith("zero"):
        ready_to_compile()
    # the plan's sharding is done here; Accelerate only brings the processes together
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
        os.environ.pop(name, None)
    handlers = [InitProcessGroupKwargs(backend="gloo")] if on_cpu and asked.processes > 1 else []
    with _met(asked, plan.recipe.hardware.rendezvous_timeout):
        accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision={"bfloat16": "bf16", "float16": "fp16"}.get(plan.world.dtype, "no"),
            log_with=list(plan.recipe.train.report_to) or None,
            project_dir=str(trackers),
            step_scheduler_with_optimizer=False,
            kwargs_handlers=handlers,
        )
    live = accelerator.num_processes
    if live != asked.processes:
        raise TlscaleError(
            f"{asked.processes} processes were launched, but this one sees {live}: each would train alone; "
            "on a CPU launch with --multi_gpu and ACCELERATE_USE_CPU=true"
        )
    set_seed(plan.seed)
    # to move tensors to Accelerate's "cpu:0" would copy them, and files would not stay mapped
    device = torch.device("cpu") if on_cpu else accelerator.device
    return Runtime(accelerator, device, accelerator.process_index, live, plan.world, asked.deepspeed)


def asked_by_launcher() -> launched.Launched:
    """What the launcher of this process was told; alone, one process."""
    if "MASTER_ADDR" in os.environ and "RANK" not in os.environ and "SLURM_JOB_ID" not in os.environ:
        raise TlscaleError(
            "the launcher was told of several machines or processes, but gave this one no rank: each would "
            "train alone; on a CPU launch with --multi_gpu and ACCELERATE_USE_CPU=true"
        )
    return launched.read(os.environ)


def leads() -> bool:
    """Whether this process is the first of all, before they have met."""
    return os.environ.get("RANK", "0") == "0"


def environment() -> dict[str, str]:
    """For `${NAME}` in a recipe's paths."""
    return dict(os.environ)


def secret(name: str) -> str | None:
    """A key from the environment; it goes to the service that it is for, and nowhere else."""
    return os.environ.get(name)


@contextmanager
def _met(asked: launched.Launched, seconds: int) -> Iterator[None]:
    """Waits for the processes of other machines, by torch's own store, which is kept for the block.

    Raises:
        TlscaleError: a machine is missing or can't be reached, or its packages differ.
    """
    if asked.machines == 1:
        yield
        return
    address, port, rank = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), int(os.environ["RANK"])
    reason = meeting.unreachable(address, port, seconds) if rank else None
    if reason:
        raise TlscaleError(reason)
    store, _, world = next(iter(rendezvous("env://", timeout=timedelta(seconds=seconds))))
    meeting.meet(
        store, rank=rank, world=world, machines=asked.machines, versions=versions(), seconds=seconds
    )
    yield


def ready_to_compile() -> None:
    """DeepSpeed compiles a part of itself with ninja, which is installed beside this Python.

    What it has compiled is kept for this installation: another one's would be compiled over, in turns.
    """
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    own = hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]
    built = Path(
        os.environ.get("TORCH_EXTENSIONS_DIR") or Path(get_default_build_root()) / f"tlscale-{own}"
    )
    os.environ["TORCH_EXTENSIONS_DIR"] = str(built)
    abandoned.free(built)


def _end_with_parent() -> None:
    """SIGTERM when the agent that started this process dies, so that no rank outlives it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _import_trackers(names: tuple[str, ...]) -> None:
    """Accelerate leaves trackers out that it can't import."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise PlanError(
                f"train.report_to: {name} can't be imported ({error}); pip install {name}, or leave it out"
            ) from error
