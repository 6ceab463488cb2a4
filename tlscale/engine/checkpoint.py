"""Checkpoints inside a stage: everything a later process needs to go on as if nothing had happened.

`snapshot` copies the state to host memory, with all processes; `write` puts a snapshot on disk, by one
process, in a thread if need be; `load` puts a process into a saved state. What is on disk is loaded only
when the manifest beside it vouches for every byte, and never as a pickle of arbitrary objects.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LRScheduler

from tlscale.engine import store
from tlscale.engine.backend import Session
from tlscale.engine.objectives import Learned
from tlscale.engine.runtime import Runtime
from tlscale.engine.store import Found

WEIGHTS = "weights.safetensors"
STATE = "state.pt"
STEPS = "step-*"
BEST = "best-*"


@dataclass
class Progress:
    """Where a stage stands.

    `best` is the lowest validation loss so far, after step `best_step`; `validated` is the last step after
    which it was measured; `skipped` counts the steps left out because their numbers weren't finite.
    """

    step: int = 0
    best: float = float("inf")
    best_step: int = 0
    evaluations_without_gain: int = 0
    tokens: int = 0
    validated: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Subject:
    """What is saved and restored, besides the random state: `learned` is what terms learn themselves."""

    session: Session
    schedule: LRScheduler
    learned: Mapping[str, Learned] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A state in host memory that training no longer touches; `state` has plain values and tensors."""

    step: int
    weights: dict[str, torch.Tensor]
    state: dict[str, Any]


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process, as plain values and tensors."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(numpy.asarray(keys).astype("int64")), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random(state: dict[str, Any]) -> None:
    """Puts every random generator of this process back."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state(("MT19937", keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def snapshot(of: Subject, progress: Progress, runtime: Runtime) -> Snapshot | None:
    """The state of training with the random state of every process, on the leading process. Collective."""
    tensors, optimizer = of.session.tensors(), of.session.optimizer_state()
    generators = runtime.collect([random_state()])
    if not runtime.leads:
        return None
    state = {
        "optimizer": _copied(optimizer),
        "schedule": of.schedule.state_dict(),
        "scaler": _copied(of.session.scaler_state()),
        "learned": {name: _copied(one.state_dict()) for name, one in of.learned.items()},
        "random": generators,
        "progress": asdict(progress),
    }
    return Snapshot(progress.step, _host(tensors), state)


def weights(session: Session, runtime: Runtime) -> dict[str, torch.Tensor] | None:
    """A copy in host memory of what training changes, on the leading process. Collective."""
    tensors = session.tensors()
    return _host(tensors) if runtime.leads else None


def write(folder: Path, made: Snapshot, key: str, keep: int) -> None:
    """Writes `folder`/step-NNNNNN and then removes all but the `keep` newest.

    Raises:
        WriteError: the system refuses; every checkpoint that was there is still there.
    """
    target = folder / f"step-{made.step:06d}"
    parts: dict[str, store.Part] = {
        WEIGHTS: lambda path: save_file(made.weights, path),
        STATE: lambda path: _save_state(made.state, path),
    }
    needs = [_best_name(made.state["progress"]["best_step"])]
    store.commit(target, parts, {"key": key, "step": made.step, "needs": needs})
    store.prune(folder, STEPS, keep=keep, last=target, key=key)


def newest(folder: Path, key: str) -> Found:
    """The newest checkpoint of the plan of `key` that is whole, if any."""
    return store.newest(folder, STEPS, key)


def load(checkpoint: Path, into: Subject, runtime: Runtime) -> tuple[Progress, int]:
    """Puts `into` and this process's random generators into the saved state.

    Where the checkpoint is of another number of processes, which comes second, the generators stay as
    a fresh start seeded them.
    """
    session, schedule = into.session, into.schedule
    session.load_tensors(load_file(checkpoint / WEIGHTS))
    state = torch.load(checkpoint / STATE, weights_only=True)
    session.load_optimizer_state(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    for name, one in into.learned.items():
        one.load_state_dict(state["learned"][name])
    for group, rate in zip(session.optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    session.load_scaler_state(state["scaler"])
    if len(state["random"]) == runtime.world:
        restore_random(state["random"][runtime.rank])
    return Progress(**state["progress"]), len(state["random"])


def write_best(folder: Path, made: Mapping[str, torch.Tensor], step: int, key: str) -> None:
    """Keeps weights as the best of the stage; older ones go, but for those that a checkpoint counts on.

    Raises:
        WriteError: the system refuses; the best before are still there.
    """
    target = folder / _best_name(step)
    store.commit(target, {WEIGHTS: lambda path: save_file(dict(made), path)}, {"key": key, "step": step})
    store.prune(folder, BEST, keep=1, last=target, key=key, needed=store.needed(folder, STEPS))


def load_best(folder: Path, session: Session, step: int, key: str) -> str | None:
    """Puts the best weights of the stage back, those after `step`; else says why they can't be."""
    reason = store.fault(folder / _best_name(step), key)
    if reason is None:
        session.load_tensors(load_file(folder / _best_name(step) / WEIGHTS))
    return reason


def _best_name(step: int) -> str:
    return f"best-{step:06d}"


def _host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}


def _copied(value: Any) -> Any:
    """`value` with copies of its tensors in host memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    return value


def _save_state(state: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # closing its archive, torch raises an error of its own over the system's
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
