"""Steps whose numbers are not finite: what is said, what is kept, and whether training goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tlscale.data.examples import Example
from tlscale.engine import checkpoint, store
from tlscale.engine.backend import Session
from tlscale.engine.checkpoint import WEIGHTS, Progress
from tlscale.engine.keeper import Place, Told
from tlscale.engine.runtime import Runtime
from tlscale.engine.step import Stepped
from tlscale.errors import TlscaleError, WriteError
from tlscale.planning.types import Safety

BATCH = "batch.pt"
KEPT_STEPS = 3


def mishap(
    stepped: Stepped,
    taken: Sequence[Sequence[Example]],
    progress: Progress,
    *,
    place: Place,
    safety: Safety,
    session: Session,
    runtime: Runtime,
    told: Told,
) -> None:
    """Keeps the step after `progress.step` for replay; returns where the policy is to leave it out.

    Collective. The weights that are kept are those before the step.

    Raises:
        TlscaleError: the policy is to stop, or so many steps were left out already.
    """
    step = progress.step + 1
    what = f"the gradient's norm became {stepped.norm}"
    if not math.isfinite(stepped.loss):
        what = f"the loss became {stepped.loss}"
    rows = [example.where for micro in taken for example in micro]
    where = ", ".join(runtime.collect(rows))
    kept = _keep(step, taken, place, session, runtime)
    told.said(
        "not_finite", stage=place.stage, step=step, loss=str(stepped.loss), grad_norm=str(stepped.norm),
        rows=where[:2000], kept=kept,
    )  # fmt: skip
    progress.skipped += 1
    if safety.on_nonfinite == "skip" and progress.skipped <= safety.max_skipped_steps:
        told.warn(
            f"step {step:,} is left out: {what}; {progress.skipped} of at most {safety.max_skipped_steps} "
            f"(train.max_skipped_steps); rows: {where[:200]}"
        )
        return
    reason = ""
    if safety.on_nonfinite == "skip":
        reason = f" in more than {safety.max_skipped_steps} steps (train.max_skipped_steps)"
    raise TlscaleError(
        f"step {step:,} of stage {place.stage}: {what}{reason}; lower train.learning_rate, or look at "
        f"these rows: {where[:400]}. {kept}"
    )


def _keep(
    step: int, taken: Sequence[Sequence[Example]], place: Place, session: Session, runtime: Runtime
) -> str:
    """Saves the step's examples and the weights; says where, or why not."""
    weights = checkpoint.weights(session, runtime)
    shares = runtime.collect([[[plain(example) for example in micro] for micro in taken]])
    if weights is None:
        return ""
    folder = place.replay / f"step-{step:06d}"
    if len(list(place.replay.glob("step-*"))) >= KEPT_STEPS:
        return f"{KEPT_STEPS} such steps are kept already"
    parts: dict[str, store.Part] = {
        WEIGHTS: lambda path: save_file(weights, path),
        BATCH: lambda path: torch.save(shares, path),
    }
    try:
        store.commit(folder, parts, {"key": place.key, "step": step})
    except WriteError as error:
        return f"The step could not be kept: {error}"
    return f"The step is kept in {folder}; `tlscale replay RUN` repeats it row by row"


def plain(example: Example) -> dict[str, Any]:
    """An example as plain values and tensors."""
    found = {field.name: getattr(example, field.name) for field in fields(example)}
    return {name: value for name, value in found.items() if value is not None}


def read(folder: Path, key: str) -> tuple[dict[str, torch.Tensor], list[Example]]:
    """The weights before a kept step, and its examples of all ranks.

    Raises:
        TlscaleError: it is not whole.
    """
    from safetensors.torch import load_file

    reason = store.fault(folder, key)
    if reason is not None:
        raise TlscaleError(f"{folder} can't be repeated: {reason}")
    shares = torch.load(folder / BATCH, weights_only=True)
    examples = [Example(**one) for share in shares for micro in share for one in micro]
    return load_file(folder / WEIGHTS), examples
