"""Control arms that are fitted on the training rows in a moment: counted words, and class means."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from tlscale.data.examples import Example
from tlscale.evaluation import tfidf
from tlscale.evaluation.predict import Indexed, classified, in_batches
from tlscale.evaluation.runner import Arm
from tlscale.evaluation.types import Outcome
from tlscale.models.load import load_base
from tlscale.planning.types import Head
from tlscale.sources import text
from tlscale.worker.examples import load_rows

if TYPE_CHECKING:
    from tlscale.worker.measure import Judge

UNTUNED_STRENGTH = 10.0


def counted_words(judge: Judge) -> Arm:
    """TF-IDF and logistic regression, with the penalty chosen on a fifth of the training rows."""
    plan = judge.plan
    found = load_rows(plan)
    texts = {
        row.where: text(row, source.text)
        for source, rows in found.values()
        for row in rows
        if source.text is not None
    }
    known = [example for example in judge.examples["train"] if example.label is not None]
    said = [texts[example.where] for example in known]
    labels = np.array([example.label for example in known], dtype=np.int64)
    classes = len(plan.facts.labels)
    chosen = tfidf.chosen_strength(said, labels, classes, seed=plan.seed)
    counts = tfidf.Tfidf.fit(said)
    model = tfidf.logistic(counts(said), labels, classes, strength=chosen or UNTUNED_STRENGTH)
    tried = f"best of {len(tfidf.STRENGTHS)} penalties" if chosen else "untuned"

    def answers(mine: Sequence[Indexed]) -> list[Outcome]:
        logs = torch.from_numpy(model(counts([texts[example.where] for _, example in mine])))
        right = torch.tensor([example.label for _, example in mine])
        return classified(mine, logs, right, plan.facts.labels)

    return Arm("tfidf", f"TF-IDF and logistic regression, {tried}", None, answers)


def nearest_mean(judge: Judge) -> Arm:
    """The class whose mean frozen feature is nearest. Snell et al. 2017 (arXiv:1703.05175)."""
    plan, device = judge.plan, judge.runtime.device
    model: Any = load_base(
        plan.recipe.model, plan.facts, head=Head(kind="pooled"), world=plan.world, seed=plan.seed
    ).to(device)
    classes = len(plan.facts.labels)
    sums: torch.Tensor | None = None
    counts = torch.zeros(classes, device=device)
    with torch.inference_mode():
        known: list[Indexed] = list(enumerate(judge.examples["train"]))
        for group in in_batches(known, judge.size):
            vectors, labels = _features(judge, model, [example for _, example in group])
            sums = torch.zeros(classes, vectors.shape[1], device=device) if sums is None else sums
            sums.index_add_(0, labels, vectors)
            counts.index_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype))
    assert sums is not None
    means = sums / counts.clamp(min=1)[:, None]
    unseen = torch.where(counts > 0, 0.0, -torch.inf)
    answers = partial(_nearest, judge, model, means, unseen)
    return Arm(
        "class_mean", "nearest class mean of frozen features", None, answers, ("accuracy", "f1_macro")
    )


def _nearest(
    judge: Judge, model: Any, means: torch.Tensor, unseen: torch.Tensor, mine: Sequence[Indexed]
) -> list[Outcome]:
    outcomes = []
    for group in in_batches(mine, judge.size):
        vectors, right = _features(judge, model, [example for _, example in group])
        logits = -torch.cdist(vectors, means).square() + unseen
        outcomes += classified(group, logits.log_softmax(dim=-1), right, judge.plan.facts.labels)
    return outcomes


def _features(judge: Judge, model: Any, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of length 1 [rows, features] and labels [rows]."""
    batch = judge.collate(examples)
    labels: torch.Tensor = batch.pop("labels")
    return functional.normalize(model.features(**batch).float(), dim=-1), labels
