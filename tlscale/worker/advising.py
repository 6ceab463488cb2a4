"""Looks at a task for `tlscale advise`: what the frozen base makes of the training rows, and chance."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tlscale.data.examples import Example, prepare
from tlscale.engine import runtime as runtimes
from tlscale.evaluation import predict, tfidf
from tlscale.evaluation.metrics import nll
from tlscale.models.load import load_base, load_processor
from tlscale.planning.advice import Estimate, Evidence
from tlscale.planning.tasks import LANGUAGE
from tlscale.planning.types import Head, Plan
from tlscale.probes import shift
from tlscale.probes.arrays import Floats, Ints
from tlscale.probes.transferability import linear_accuracy
from tlscale.recipe.types import Source
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json
from tlscale.sources import Row, text
from tlscale.worker.examples import load_rows, thinned
from tlscale.worker.hiding import fixed
from tlscale.worker.measure import Judge, label_examples

ROWS, SHIFT_ROWS, TEXT_ROWS, FOLDS = 2000, 500, 200, 5
LEAST_PER_CLASS = 2
Z = 1.959964
STRENGTH = 10.0


def look(plan: Plan, layout: RunLayout, as_json: bool) -> None:
    """Writes `layout.evidence`.

    Raises:
        DataError: the rows can't be read.
    """
    runtime = runtimes.start(plan, layout.trackers)
    processor = load_processor(plan.recipe.model, plan.facts)
    judge = Judge(plan, layout, runtime, processor, {})
    rows = load_rows(plan)
    parameters = sum(tensor.size for tensor in plan.facts.tensors)
    source, training = rows["train"]
    known: dict[str, Any] = {
        "task": plan.recipe.model.task, "rows": len(training), "parameters": parameters,
    }  # fmt: skip
    with torch.inference_mode(), runtime.accelerator.autocast():
        if plan.facts.labels:
            found = _labelled(judge, source, thinned(training, ROWS))
            if "test" in rows:
                found |= _apart(judge, found.pop("features"), *rows["test"])
        else:
            found = _language(judge, rows)
    found.pop("features", None)
    write_json(layout.evidence, Evidence(**known, **found).model_dump(mode="json"))
    if as_json:
        print(json.dumps({"evidence": str(layout.evidence)}))


def _labelled(judge: Judge, source: Source, rows: Sequence[Row]) -> dict[str, Any]:
    plan = judge.plan
    examples = _examples(judge, source, rows)
    labels = np.array([example.label for example in examples], dtype=np.int64)
    counts = Counter(labels.tolist())
    features = _features(judge, examples)
    found: dict[str, Any] = {
        "features": features, "examined": len(examples), "classes": len(plan.facts.labels),
        "fewest": min(counts.get(k, 0) for k in range(len(plan.facts.labels))),
        "median": int(np.median(list(counts.values()))), "majority": max(counts.values()) / len(examples),
    }  # fmt: skip
    if plan.recipe.model.task == "sequence-classification":
        found["zero_shot"] = estimate(_by_names(judge, examples), len(examples))
    if found["fewest"] < LEAST_PER_CLASS:
        return found
    shuffled = np.random.default_rng(plan.seed).permutation(labels)
    found["linear"] = estimate(linear_accuracy(features, labels), len(labels))
    found["shuffled"] = estimate(linear_accuracy(features, shuffled), len(labels))
    folds = np.random.default_rng(plan.seed).permutation(len(labels)) % min(FOLDS, found["fewest"])
    found["class_mean"] = estimate(_means(features, labels, folds), len(labels))
    if source.text is not None:
        said = {row.where: text(row, source.text) for row in rows}
        words = _words([said[example.where] for example in examples], labels, folds, found["classes"])
        found["tfidf"] = estimate(words, len(labels))
    return found


def _examples(judge: Judge, source: Source, rows: Sequence[Row]) -> Sequence[Example]:
    plan = judge.plan
    return prepare(
        rows, source, task=plan.recipe.model.task, processor=judge.processor, labels=plan.facts.labels,
        max_length=plan.max_length, overflow=plan.recipe.data.overflow, loss_on=plan.recipe.data.loss_on,
    ).examples  # fmt: skip


def _features(judge: Judge, examples: Sequence[Example]) -> Floats:
    """Frozen pooled features of length 1 [rows, features], in the order of `examples`."""
    plan, device = judge.plan, judge.runtime.device
    model: Any = load_base(
        plan.recipe.model, plan.facts, head=Head(kind="pooled"), world=plan.world, seed=plan.seed
    ).to(device)
    found: dict[int, Floats] = {}
    for group in predict.in_batches(list(enumerate(examples)), judge.size):
        batch = judge.collate([example for _, example in group])
        batch.pop("labels")
        vectors = functional.normalize(model.features(**batch).float(), dim=-1).cpu().numpy()
        found |= {index: row for (index, _), row in zip(group, vectors, strict=True)}
    return np.stack([found[index] for index in range(len(examples))]).astype(np.float64)


def _by_names(judge: Judge, examples: Sequence[Example]) -> float:
    """Share of rows whose nearest label name is right."""
    plan = judge.plan
    model = plan.recipe.model.model_copy(update={"task": "sentence-embedding"})
    encoder = load_base(model, plan.facts, head=Head(kind="native"), world=plan.world, seed=plan.seed)
    outcomes = predict.nearest_label(
        encoder.to(judge.runtime.device).eval(), list(enumerate(examples)), label_examples(judge),
        collate=judge.collate, size=judge.size, labels=plan.facts.labels,
    )  # fmt: skip
    return sum(outcome.correct for outcome in outcomes) / len(outcomes)


def _means(features: Floats, labels: Ints, folds: Ints) -> float:
    """Cross-validated accuracy of the nearest class mean."""
    right = 0
    for fold in np.unique(folds):
        kept = folds != fold
        classes = np.unique(labels[kept])
        means = np.stack([features[kept & (labels == k)].mean(axis=0) for k in classes])
        away = ((features[~kept][:, None] - means[None]) ** 2).sum(axis=2)
        right += int((classes[away.argmin(axis=1)] == labels[~kept]).sum())
    return right / len(labels)


def _words(texts: Sequence[str], labels: Ints, folds: Ints, classes: int) -> float:
    """Cross-validated accuracy of TF-IDF and logistic regression."""
    right = 0
    for fold in np.unique(folds):
        kept = [i for i, f in enumerate(folds) if f != fold]
        held = [i for i, f in enumerate(folds) if f == fold]
        counts = tfidf.Tfidf.fit([texts[i] for i in kept])
        model = tfidf.logistic(counts([texts[i] for i in kept]), labels[kept], classes, strength=STRENGTH)
        right += int((model(counts([texts[i] for i in held])).argmax(axis=1) == labels[held]).sum())
    return right / len(labels)


def _apart(judge: Judge, features: Floats, source: Source, rows: Sequence[Row]) -> dict[str, Any]:
    """How well test inputs are told from training inputs; their labels are not looked at."""
    examples = _examples(judge, source, thinned(rows, SHIFT_ROWS))
    other = _features(judge, examples)
    one = features[:: max(1, len(features) // SHIFT_ROWS)]
    found = shift.classifier_two_sample(one, other, seed=judge.plan.seed)
    return {"told_apart": float(found.value), "told_apart_p": float(found.p)}


def _language(judge: Judge, rows: dict[str, tuple[Source, Any]]) -> dict[str, Any]:
    plan = judge.plan
    new = plan.facts.head_is_new
    if plan.recipe.model.task not in LANGUAGE or new:
        return {"examined": 0, "new_head": new and plan.recipe.model.task == "masked-lm"}
    model = load_base(
        plan.recipe.model, plan.facts, head=Head(kind="native"), world=plan.world, seed=plan.seed
    )
    model.to(judge.runtime.device).eval()
    found: dict[str, Any] = {}
    for role, name in (("train", "base_nll"), ("retention", "retention_nll")):
        if role not in rows:
            continue
        source, given = rows[role]
        examples = _examples(judge, source, thinned(given, TEXT_ROWS))
        examples = fixed(plan, judge.processor, examples)
        some = [(at, examples[at]) for at in range(0, len(examples), max(1, len(examples) // TEXT_ROWS))]
        outcomes = predict.token_likelihoods(model, some, collate=judge.collate, size=judge.size)
        found[name] = nll(outcomes)[0]
        found.setdefault("examined", len(some))
    return found


def estimate(share: float, rows: int) -> Estimate:
    """Wilson's 95 % interval of a share of `rows`."""
    spread = Z * math.sqrt(share * (1 - share) / rows + Z * Z / (4 * rows * rows))
    middle, scale = share + Z * Z / (2 * rows), 1 + Z * Z / rows
    return Estimate(
        value=share, low=max(0.0, (middle - spread) / scale), high=min(1.0, (middle + spread) / scale)
    )
