"""Checkpoints inside a stage: everything a later process needs to go on as if nothing had happened.

A checkpoint is written beside its final name and renamed when its manifest, written last, is on disk.
Only what the manifest vouches for is ever loaded.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LRScheduler

from tlscale.engine.backend import Session
from tlscale.models.saving import saving
from tlscale.runs.layout import MANIFEST
from tlscale.runs.record import sha256, sync_folder, write_json

WEIGHTS = "weights.safetensors"
STATE = "state.pt"
BEST = "best.safetensors"
KEPT = 2


@dataclass
class Progress:
    """Where a stage stands. `best` is the lowest validation loss so far."""

    step: int = 0
    best: float = float("inf")
    evaluations_without_gain: int = 0
    tokens: int = 0


def random_state() -> dict[str, Any]:
    """The state of every random generator, as plain values and tensors."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(numpy.asarray(keys).astype("int64")), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random(state: dict[str, Any]) -> None:
    """Puts every random generator back."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state(("MT19937", keys.numpy().astype("uint32"), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def save(
    folder: Path,
    session: Session,
    schedule: LRScheduler,
    progress: Progress,
    fingerprint: str,
    *,
    leads: bool,
) -> None:
    """Writes `folder`/step-NNNNNN; older ones are pruned after. All processes call it, one `leads`."""
    target = folder / f"step-{progress.step:06d}"
    tensors, optimizer = session.tensors(), session.optimizer_state()
    if not leads:
        return
    with saving(target) as partial:
        _save_tensors(tensors, partial / WEIGHTS)
        state = {
            "optimizer": optimizer,
            "schedule": schedule.state_dict(),
            "scaler": session.scaler_state(),
            "random": random_state(),
            "progress": asdict(progress),
        }
        _save_state(state, partial)
        files = {name: sha256(partial / name) for name in (WEIGHTS, STATE)}
        write_json(partial / MANIFEST, {"fingerprint": fingerprint, "step": progress.step, "files": files})
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        sync_folder(folder)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def newest(folder: Path, fingerprint: str) -> Path | None:
    """The newest checkpoint of this plan whose files are what its manifest says, if any."""
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        manifest = candidate / MANIFEST
        if not manifest.is_file():
            continue
        said = json.loads(manifest.read_text(encoding="utf-8"))
        if said["fingerprint"] != fingerprint:
            continue
        if all((candidate / n).is_file() and sha256(candidate / n) == d for n, d in said["files"].items()):
            return candidate
    return None


def load(checkpoint: Path, session: Session, schedule: LRScheduler) -> Progress:
    """Puts `session`, `schedule` and the random generators into the saved state."""
    session.load_tensors(load_file(checkpoint / WEIGHTS))
    state = torch.load(checkpoint / STATE, weights_only=True)
    session.load_optimizer_state(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    for group, rate in zip(session.optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    session.load_scaler_state(state["scaler"])
    restore_random(state["random"])
    return Progress(**state["progress"])


def save_best(folder: Path, session: Session, *, leads: bool) -> None:
    """Keeps the present weights as the best of the stage. All processes call it, one `leads`."""
    tensors = session.tensors()
    if not leads:
        return
    with saving(folder / BEST) as partial:
        _save_tensors(tensors, partial / BEST)
        (partial / BEST).replace(folder / BEST)


def load_best(folder: Path, session: Session) -> None:
    """Puts the best weights of the stage back; does nothing when none were kept."""
    if (folder / BEST).is_file():
        session.load_tensors(load_file(folder / BEST))


def _save_state(state: Mapping[str, Any], folder: Path) -> None:
    with (folder / STATE).open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # closing its archive, torch raises an error of its own over the system's
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def _save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, path)
