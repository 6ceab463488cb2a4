"""`tlscale probe` for language models: how well frozen bases read a recipe's texts, and their shift.

Perplexity as a measure of the shift between domains, as in Gururangan et al. 2020 (arXiv:2004.10964), in
bits a byte: tokens of different vocabularies are no common unit, bytes of text are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from tlscale.data.collate import collate
from tlscale.data.examples import Example, prepare
from tlscale.errors import DataError
from tlscale.evaluation import predict
from tlscale.evaluation.metrics import nll
from tlscale.models.heads import Pooling
from tlscale.models.layers import pooled_layers
from tlscale.models.load import load_base, load_processor
from tlscale.planning.facts import read_facts
from tlscale.planning.types import Head, Plan
from tlscale.probes.arrays import Floats
from tlscale.recipe.base import Frozen
from tlscale.recipe.candidates import candidate
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json
from tlscale.worker.examples import load_rows, thinned
from tlscale.worker.probing import Request, Shift, shift_between, shift_lines

ROLES = ("train", "test", "retention")
POOLING: Pooling = "mean"
# windows of either role that samples are told apart by; below that no distance is given
FEWEST = 10
NOTE = """\
Bits a byte, lower is better: frozen models read the same texts, whatever their vocabularies. The first
column ranks them; where it is far above the others, the base has most to learn from reading (a stage of
continued pretraining), and where retention is far below, most to forget."""


class Reading(Frozen):
    """How well one model reads the texts of one role.

    `bits_per_byte` with its standard error over windows; `nll` in nats a token, `tokens` those counted.
    """

    model: str
    role: str
    bits_per_byte: float
    stderr: float | None
    nll: float
    tokens: int


def read(plan: Plan, layout: RunLayout, as_json: bool, request: str) -> None:
    """Writes `layout.probe`: models ranked by how well they read the training texts, and the shifts.

    Raises:
        PlanError: a model can't be loaded.
        DataError: the data can't be read, or a role has no token that can be scored.
    """
    asked = Request.model_validate_json(request)
    readings: list[Reading] = []
    shifts: list[Shift] = []
    for name in asked.models or (plan.recipe.model.model_name_or_path,):
        found, features = _look(plan, name, asked)
        readings += found
        for role in ROLES[1:]:
            if min(len(features["train"]), len(features.get(role, ()))) >= FEWEST:
                shifts.append(shift_between(name, features["train"], features[role], plan.seed, to=role))
    told = {
        "fingerprint": plan.fingerprint,
        "readings": [one.model_dump() for one in readings],
        "shift": [one.model_dump() for one in shifts],
    }
    write_json(layout.probe, told)
    print(json.dumps(told) if as_json else table(readings, shifts))


def _look(plan: Plan, name: str, asked: Request) -> tuple[list[Reading], dict[str, Floats]]:
    """Of each role's texts, by the model `name`: a reading, and mean last states [windows, features]."""
    model = candidate(plan.recipe.model, name)
    facts = read_facts(model, labels=(), offline=asked.offline)
    processor = load_processor(model, facts)
    loaded: Any = load_base(model, facts, head=Head(kind="native"), world=plan.world, seed=plan.seed)
    loaded = loaded.to(plan.world.device).eval()
    data = plan.recipe.data
    readings, features = [], {}
    for role, (source, rows) in load_rows(plan).items():
        if role not in ROLES:
            continue
        examples = prepare(
            thinned(rows, asked.rows), source, task="causal-lm", processor=processor, labels=(),
            max_length=plan.max_length, overflow=data.overflow, loss_on=data.loss_on,
        ).examples  # fmt: skip
        some = thinned_examples(examples, asked.rows)
        readings.append(_reading(plan, name, role, loaded, processor, some))
        features[role] = _states(plan, loaded, processor, some)
    return readings, features


def thinned_examples(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` of them, evenly spaced: one long document is many windows."""
    if len(examples) <= most:
        return list(examples)
    return [examples[index * len(examples) // most] for index in range(most)]


def _collate(plan: Plan, processor: Any) -> Any:
    return partial(
        collate, task="causal-lm", pad_id=processor.pad_token_id, device=torch.device(plan.world.device)
    )


def _reading(
    plan: Plan, name: str, role: str, model: nn.Module, processor: Any, examples: Sequence[Example]
) -> Reading:
    outcomes = predict.token_likelihoods(
        model, list(enumerate(examples)), collate=_collate(plan, processor),
        size=plan.recipe.train.per_device_eval_batch_size,
    )  # fmt: skip
    tokens = sum(outcome.tokens for outcome in outcomes)
    scored = sum(_bytes(processor, example) for example in examples)
    if not tokens or not scored:
        raise DataError(f"data.{role}: no token of it can be scored; each text needs at least two")
    value, error = nll(outcomes)
    bits = tokens / scored / math.log(2)
    return Reading(
        model=name,
        role=role,
        bits_per_byte=value * bits,
        stderr=None if error is None else error * bits,
        nll=value,
        tokens=tokens,
    )


def _bytes(processor: Any, example: Example) -> int:
    """Bytes of the text that the scored tokens of `example` stand for."""
    tokens, counts = example.tokens or [], example.loss or []
    scored = [token for token, counted in zip(tokens, counts, strict=True) if counted]
    return len(processor.decode(scored, skip_special_tokens=True).encode())


def _states(plan: Plan, model: Any, processor: Any, examples: Sequence[Example]) -> Floats:
    put, size = _collate(plan, processor), plan.recipe.train.per_device_eval_batch_size
    parts = []
    for start in range(0, len(examples), size):
        batch = put(examples[start : start + size])
        batch.pop("labels")
        parts.append(pooled_layers(model.base_model, (POOLING,), batch)[POOLING][-1].cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def table(readings: Sequence[Reading], shifts: Sequence[Shift]) -> str:
    """Models by role, the best reader of the training texts first, and the shifts, as plain text."""
    roles = [role for role in ROLES if any(one.role == role for one in readings)]
    by = {(one.model, one.role): one for one in readings}
    names = sorted(dict.fromkeys(one.model for one in readings), key=lambda n: by[n, "train"].bits_per_byte)
    width = max(len("bits a byte"), *(len(name) for name in names))
    lines = [f"{'bits a byte':<{width}} " + "".join(f"{role:>18}" for role in roles)]
    for name in names:
        lines.append(f"{name:<{width}} " + "".join(f"{_cell(by[name, role]):>18}" for role in roles))
    return "\n".join([*lines, NOTE, *shift_lines(shifts)])


def _cell(one: Reading) -> str:
    return f"{one.bits_per_byte:.3f}" + ("" if one.stderr is None else f" +- {one.stderr:.3f}")
