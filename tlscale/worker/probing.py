"""`tlscale probe`: which base, layer and pooling suit a task, from frozen features alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.stats import kendalltau
from torch import nn

from tlscale.data.collate import collate
from tlscale.data.examples import Example, prepare
from tlscale.models.heads import Pooling
from tlscale.models.layers import pooled_layers
from tlscale.models.load import load_base, load_processor
from tlscale.planning.facts import read_facts
from tlscale.planning.types import Head, Plan
from tlscale.probes import shift, transferability
from tlscale.probes.arrays import Floats, Ints
from tlscale.probes.similarity import cka
from tlscale.recipe.base import Frozen
from tlscale.recipe.candidates import candidate
from tlscale.recipe.pictures import ImageProcessor
from tlscale.recipe.types import Model
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json
from tlscale.worker import alignment
from tlscale.worker.examples import load_rows, thinned

SHIFT_ROWS = 1000
LONGEST_NAME = 32
NOTE = """\
Ranked by logme; higher is better in every column, and columns are no common scale. knn and linear are
leave-one-out accuracies; shuffled is logme on shuffled labels: what chance gives."""
LEEP = "leep is of what a base's own trained head answers; - where it has none."


class Request(Frozen):
    """What `tlscale probe` was asked for."""

    models: tuple[str, ...] = ()
    layers: bool = False
    poolings: tuple[Literal["auto", "mean", "cls", "last"], ...] = ("auto",)
    rows: int = Field(2000, ge=2)
    alignment: bool = False
    offline: bool = False


class Source(Frozen):
    """One place that features come from, and what the measures say of it.

    `leep` is of the whole base, `None` for one without a classification head of its own.
    """

    model: str
    layer: int
    layers: int
    pooling: str
    dimensions: int
    scores: dict[str, float]
    leep: float | None
    logme_shuffled: float
    cka_to_first: float


class Shift(Frozen):
    """How far the rows of role `to` are from the training rows in a model's last layer."""

    model: str
    to: str
    rows: int
    a_distance: float
    c2st: float
    c2st_p: float
    mmd: float
    mmd_p: float


def probe(plan: Plan, layout: RunLayout, as_json: bool, request: str = "{}") -> None:
    """Writes `layout.probe`: sources ranked by LogME, and the shift from training to test rows.

    Raises:
        PlanError: a model can't be loaded.
        DataError: the data can't be read, or a model gives features that are not finite.
    """
    asked = Request.model_validate_json(request)
    sources: list[Source] = []
    shifts: list[Shift] = []
    first: Floats | None = None
    rows = 0
    for name in asked.models or (plan.recipe.model.model_name_or_path,):
        seen = _look(plan, name, asked)
        rows = len(seen.labels)
        for pooling, layers in seen.train.items():
            first = layers[-1] if first is None else first
            for layer in range(len(layers)) if asked.layers else (len(layers) - 1,):
                sources.append(_source(name, pooling, layer, layers, seen, plan.seed, first))
        if seen.test:
            last, other = (next(iter(role.values()))[-1] for role in (seen.train, seen.test))
            shifts.append(shift_between(name, last, other, plan.seed, to="test"))
    sources.sort(key=lambda source: -source.scores["logme"])
    prepared = alignment.compared(plan, partial(_last_layer, plan, asked), wide=asked.alignment)
    told = {
        "fingerprint": plan.fingerprint,
        "rows": rows,
        "classes": len(plan.facts.labels),
        "sources": [source.model_dump() for source in sources],
        "agreement": agreement(sources),
        "shift": [one.model_dump() for one in shifts],
        "alignment": [one.model_dump() for one in prepared],
    }
    write_json(layout.probe, told)
    found = [table(sources, shifts, rows, agreement(sources)), *alignment.lines(prepared)]
    print(json.dumps(told) if as_json else "\n".join(found))


def agreement(sources: Sequence[Source]) -> dict[str, float]:
    """Kendall's tau of each measure with the linear accuracy over the sources; none for fewer than 3."""
    if len(sources) < 3:
        return {}
    linear = [source.scores["linear"] for source in sources]
    names = [name for name in sources[0].scores if name != "linear"]
    taus = {name: float(kendalltau([s.scores[name] for s in sources], linear).statistic) for name in names}
    return {name: tau for name, tau in taus.items() if np.isfinite(tau)}


@dataclass(frozen=True)
class Seen:
    """A model's pooled layers by pooling, each [rows, dimensions], and the training rows' labels.

    `leep` is of its own head's answers on the training rows, where it has one.
    """

    labels: Ints
    train: dict[Pooling, list[Floats]]
    test: dict[Pooling, list[Floats]]
    leep: float | None


def _look(plan: Plan, name: str, asked: Request) -> Seen:
    """Runs the frozen model `name` over the training rows and, where there are some, the test rows."""
    return _run(plan, candidate(plan.recipe.model, name), asked, ("train", "test"), heads=True)


def _last_layer(plan: Plan, asked: Request, given: ImageProcessor | None) -> tuple[Floats, Ints]:
    """The recipe's own base over training rows whose pictures are prepared as `given` says."""
    model = plan.recipe.model.model_copy(update={"image_processor": given})
    seen = _run(plan, model, asked.model_copy(update={"poolings": ("auto",)}), ("train",), heads=False)
    return next(iter(seen.train.values()))[-1], seen.labels


def _run(plan: Plan, model: Model, asked: Request, roles: Sequence[str], *, heads: bool) -> Seen:
    facts = read_facts(model, labels=plan.facts.labels, offline=asked.offline)
    processor = load_processor(model, facts)
    world = plan.world.model_copy(update={"dtype": "float32"})
    loaded: Any = load_base(model, facts, head=Head(kind="pooled"), world=world, seed=plan.seed)
    backbone: nn.Module = loaded.backbone.to(plan.world.device).eval()
    poolings: list[Pooling] = [
        loaded.pooling if asked_for == "auto" else asked_for for asked_for in asked.poolings
    ]
    longest = min(plan.max_length, facts.architecture.max_length or plan.max_length)
    labels, found, leep = np.zeros(0, dtype=np.int64), {}, None
    for role, (source, rows) in load_rows(plan).items():
        if role not in roles:
            continue
        examples = prepare(
            thinned(rows, asked.rows), source, task=model.task, processor=processor, labels=facts.labels,
            max_length=longest, overflow=plan.recipe.data.overflow, loss_on="all",
        ).examples  # fmt: skip
        pad_id = getattr(processor, "pad_token_id", None) or 0
        found[role] = _all_layers(backbone, poolings, examples, plan, pad_id)
        if role == "train":
            labels = np.array([example.label for example in examples], dtype=np.int64)
            answers = _answers(plan, model, examples, pad_id, offline=asked.offline) if heads else None
            leep = None if answers is None else transferability.leep(answers, labels)
    return Seen(labels, found["train"], found.get("test", {}), leep)


@torch.no_grad()
def _answers(
    plan: Plan, model: Model, examples: Sequence[Example], pad_id: int, *, offline: bool
) -> Floats | None:
    """[rows, its own classes]: the chances that the base's own trained head gives; `None` without one."""
    facts = read_facts(model, labels=(), offline=offline)
    if facts.head_is_new or model.init == "scratch":
        return None
    world = plan.world.model_copy(update={"dtype": "float32"})
    module: Any = load_base(model, facts, head=Head(kind="native"), world=world, seed=plan.seed)
    module = module.to(plan.world.device).eval()
    made, size = [], plan.recipe.train.per_device_eval_batch_size
    for at in range(0, len(examples), size):
        batch = collate(examples[at : at + size], task=model.task, pad_id=pad_id, device=module.device)
        batch.pop("labels")
        made.append(module(**batch).logits.double().softmax(dim=-1).cpu())
    chances: Floats = torch.cat(made).numpy()
    return chances if chances.shape[1] > 1 else None


def _all_layers(
    backbone: nn.Module, poolings: Sequence[Pooling], examples: Sequence[Example], plan: Plan, pad_id: int
) -> dict[Pooling, list[Floats]]:
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].tokens or ()))
    size, device = plan.recipe.train.per_device_eval_batch_size, next(backbone.parameters()).device
    made: list[dict[Pooling, list[torch.Tensor]]] = []
    for start in range(0, len(order), size):
        chosen = [examples[i] for i in order[start : start + size]]
        batch = collate(chosen, task=plan.recipe.model.task, pad_id=pad_id, device=device)
        batch.pop("labels")
        made.append(pooled_layers(backbone, poolings, batch))
    back = np.argsort(order)
    return {
        pooling: [
            torch.cat(parts).cpu().numpy().astype(np.float64)[back]
            for parts in zip(*(batch[pooling] for batch in made), strict=True)
        ]
        for pooling in dict.fromkeys(poolings)
    }


def _source(
    name: str, pooling: str, layer: int, layers: list[Floats], seen: Seen, seed: int, first: Floats
) -> Source:
    features, labels = layers[layer], seen.labels
    shuffled = np.random.default_rng(seed).permutation(labels)
    return Source(
        model=name,
        layer=layer,
        layers=len(layers),
        pooling=pooling,
        dimensions=features.shape[1],
        scores={key: float(measure(features, labels)) for key, measure in transferability.MEASURES.items()},
        leep=seen.leep,
        logme_shuffled=transferability.logme(features, shuffled),
        cka_to_first=cka(first, features),
    )


def shift_between(name: str, train: Floats, rows: Floats, seed: int, *, to: str) -> Shift:
    """The distances between features [rows, dimensions] of training rows and of those of role `to`."""
    one, other = (some[:: max(1, len(some) // SHIFT_ROWS)] for some in (train, rows))
    c2st = shift.classifier_two_sample(one, other, seed=seed)
    mmd = shift.maximum_mean_discrepancy(one, other, seed=seed)
    return Shift(
        model=name,
        to=to,
        rows=min(len(one), len(other)),
        a_distance=shift.proxy_a_distance(one, other, seed=seed),
        c2st=c2st.value,
        c2st_p=c2st.p,
        mmd=mmd.value,
        mmd_p=mmd.p,
    )


def table(sources: Sequence[Source], shifts: Sequence[Shift], rows: int, taus: dict[str, float]) -> str:
    """The ranking and the shifts, as plain text."""
    width = max(len("source"), *(len(_label(source)) for source in sources))
    names = tuple(sources[0].scores)
    answered = any(source.leep is not None for source in sources)
    head = "".join(f"{name:>11}" for name in (*names, *(("leep",) if answered else ())))
    lines = [f"{'source':<{width}} {head} {'shuffled':>9} {'cka':>6}   {rows:,} rows"]
    for source in sources:
        cells = "".join(f"{source.scores[name]:>11.4f}" for name in names)
        if answered:
            cells += f"{'-':>11}" if source.leep is None else f"{source.leep:>11.4f}"
        lines.append(
            f"{_label(source):<{width}} {cells} {source.logme_shuffled:>9.4f} {source.cka_to_first:>6.3f}"
        )
    if taus:
        cells = "".join(f"{taus[name]:>11.2f}" if name in taus else " " * 11 for name in names)
        lines.append(f"{'rank agreement with linear (tau)':<{width}} {cells}")
    lines += [NOTE, *((LEEP,) if answered else ())]
    return "\n".join([*lines, *shift_lines(shifts)])


def shift_lines(shifts: Sequence[Shift]) -> list[str]:
    """Two lines for each distance, as plain text."""
    lines = []
    for one in shifts:
        lines.append(f"shift     train to {one.to} in {one.model}, {one.rows:,} rows each")
        lines.append(
            f"          told apart {one.c2st:.1%} (chance 50 %, p {one.c2st_p:.2g}), A-distance "
            f"{one.a_distance:.2f} of 2, MMD {one.mmd:.2g} (p {one.mmd_p:.2g})"
        )
    return lines


def _label(source: Source) -> str:
    name = source.model if len(source.model) <= LONGEST_NAME else "..." + source.model[3 - LONGEST_NAME :]
    return f"{name} layer {source.layer}/{source.layers - 1} {source.pooling}"
