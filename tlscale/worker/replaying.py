"""Repeats steps whose numbers were not finite: which rows, and which part of the model, are to blame."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.engine import mishap
from tlscale.engine.backend import put, statistics, trainable
from tlscale.engine.objectives import task_loss
from tlscale.engine.step import on_device, set_modes
from tlscale.engine.view import TRAIN, View
from tlscale.models import adapt
from tlscale.models.load import load_base
from tlscale.planning.changes import resume_key
from tlscale.planning.types import Plan
from tlscale.runs.layout import RunLayout
from tlscale.worker.alone import alone
from tlscale.worker.chain import Job, starting_point


def replay(plan: Plan, layout: RunLayout, as_json: bool) -> None:
    """Prints the task's loss and gradient norm of every row of each kept step, with the weights before it.

    Raises:
        TlscaleError: a kept step is not whole, or of another plan.
    """
    job, key = alone(plan, layout), resume_key(plan)
    for planned in plan.stages:
        folders = sorted(layout.replay(planned.stage.name).glob("step-*"))
        if not folders:
            continue
        model, continued = starting_point(job, planned)
        base = load_base(model, plan.facts, head=planned.stage.head, world=job.plan.world, seed=plan.seed)
        module = adapt.apply(base, planned, task=model.task, continue_from=continued)
        module.to(job.runtime.device)
        for folder in folders:
            weights, examples = mishap.read(folder, key)
            put({**{n: p.data for n, p in trainable(module).items()}, **statistics(module)}, weights)
            _repeat(job, module, folder, examples, as_json)


def _repeat(job: Job, module: nn.Module, folder: Path, examples: list[Example], as_json: bool) -> None:
    pad = getattr(job.processor, "pad_token_id", None) or 0
    made = partial(collate, task=job.plan.recipe.model.task, pad_id=pad)
    broken = [name for name, tensor in trainable(module).items() if not bool(tensor.isfinite().all())]
    if not as_json:
        state = (
            f"parameters not finite before it: {', '.join(broken)}" if broken else "all parameters finite"
        )
        print(f"{folder}: {len(examples):,} rows, {state}")
    set_modes(module)
    for example in examples:
        batch: Any = on_device(made([example]), job.runtime.device)
        module.zero_grad(set_to_none=True)
        with _first_not_finite(module) as found:
            loss = task_loss(View(module, {TRAIN: batch}), TRAIN, 0.0)
            torch.autograd.backward(loss)
        squares = [float(p.grad.square().sum()) for p in trainable(module).values() if p.grad is not None]
        norm = math.sqrt(sum(squares)) if all(map(math.isfinite, squares)) else math.nan
        finite = math.isfinite(float(loss)) and math.isfinite(norm)
        place = found[0] if found else ("" if finite else "the gradient")
        if as_json:
            row = {"step": folder.name, "where": example.where, "finite": finite, "first": place}
            numbers = {"loss": float(loss), "grad_norm": norm}
            print(json.dumps({**row, **{n: v if math.isfinite(v) else None for n, v in numbers.items()}}))
        else:
            blame = "" if finite else f"   first not finite: {place}"
            print(f"  {example.where:<40} loss {float(loss):<12.6g} gradient {norm:<12.6g}{blame}")


@contextmanager
def _first_not_finite(module: nn.Module) -> Iterator[list[str]]:
    """Lists the parts of `module` whose output isn't finite, in the order of the forward pass."""
    found: list[str] = []

    def look(name: str, part: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, torch.Tensor) and first.is_floating_point() and not first.isfinite().all():
            found.append(name or "the model")

    hooks = [part.register_forward_hook(partial(look, name)) for name, part in module.named_modules()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
