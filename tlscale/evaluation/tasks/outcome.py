"""What an item's answer is worth: results of its requests -> one outcome. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tlscale.evaluation.requests import (
    ChoiceScores,
    Generated,
    LikelihoodScore,
    Result,
    RollingScore,
)
from tlscale.evaluation.tasks.prompt import Item
from tlscale.evaluation.tasks.task import Document, Task
from tlscale.evaluation.types import Outcome


def outcome(
    task: Task, item: Item, results: Sequence[Result], index: int, labels: Sequence[str]
) -> Outcome:
    """The outcome of item number `index` from the results of its requests, in their order."""
    document = item.document
    made = Outcome(item=index, where=document.where, tags=dict(document.tags) or None)
    first = results[0]
    if document.contexts:
        return _chosen(task, made, document, _competing(results), labels)
    if isinstance(first, ChoiceScores) and task.kind == "embedding":
        own, other = first.logprobs
        return made.model_copy(update={"values": {"acc": float(own > other)}, "scores": first.logprobs})
    if isinstance(first, ChoiceScores):
        found = _chosen(task, made, document, first, labels)
        return _contextual(found, document, [r for r in results[1:] if isinstance(r, ChoiceScores)])
    if isinstance(first, LikelihoodScore):
        values = {"acc": float(first.greedy), "words": float(len(str(document.answer).split()))}
        return made.model_copy(update={"nll": -first.logprob, "tokens": first.tokens, "values": values})
    if isinstance(first, RollingScore):
        sizes = {"words": float(first.words), "bytes": float(first.bytes)}
        return made.model_copy(update={"nll": -first.logprob, "tokens": first.tokens, "values": sizes})
    assert isinstance(first, Generated), first
    given, wanted = task.extract(first.text), task.extract(str(document.answer))
    values = {"exact_match": float(given == wanted)}
    return made.model_copy(
        update={"prediction": given, "reference": wanted, "tokens": max(1, first.tokens), "values": values}
    )


def _competing(results: Sequence[Result]) -> ChoiceScores:
    """The same continuation after each context, as if they were choices (Trinh and Le 2018)."""
    found = [r for r in results if isinstance(r, LikelihoodScore)]
    return ChoiceScores(
        logprobs=tuple(r.logprob for r in found),
        tokens=tuple(r.tokens for r in found),
        cut=sum(r.cut for r in found),
    )


def best(scores: Sequence[float]) -> int:
    """Index of the largest score; the first of equal ones."""
    return max(range(len(scores)), key=lambda at: (scores[at], -at))


def _chosen(
    task: Task,
    made: Outcome,
    document: Document,
    scores: ChoiceScores,
    labels: Sequence[str],
) -> Outcome:
    """The choice by each normalisation; `acc_norm` divides by characters as lm-evaluation-harness does."""
    right = document.right or (int(document.answer or 0),)
    plain = scores.logprobs
    options = document.choices if not document.contexts else document.choices * len(document.contexts)
    sizes = [max(1, len(option)) for option in options]
    variants = {
        "acc": plain,
        "acc_norm": tuple(s / n for s, n in zip(plain, sizes, strict=True)),
        "acc_norm_tokens": tuple(s / max(1, n) for s, n in zip(plain, scores.tokens, strict=True)),
    }
    if scores.unconditional is not None:
        variants["acc_pmi"] = tuple(s - u for s, u in zip(plain, scores.unconditional, strict=True))
    chosen, likely = best(plain), probabilities(plain)
    names = labels or [str(at) for at in range(len(options))]
    found: dict[str, Any] = {"prediction": names[chosen], "scores": plain}
    values: dict[str, float] = {}
    if document.right or document.answer is not None:
        values = {name: float(best(scored) in right) for name, scored in variants.items()}
        values["mc2"] = sum(likely[at] for at in right)
        found |= {"nll": -math.log(max(likely[right[0]], 1e-300)), "reference": names[right[0]]}
    found["values"] = {**values, **task.extra(document, chosen, plain)}
    return made.model_copy(update=found)


def probabilities(scores: Sequence[float]) -> list[float]:
    """Softmax of log-likelihoods over the choices."""
    top = max(scores)
    weights = [math.exp(s - top) for s in scores]
    return [w / sum(weights) for w in weights]


def _contextual(found: Outcome, document: Document, blanks: Sequence[ChoiceScores]) -> Outcome:
    """Scores over those of content-free inputs, whose probabilities are averaged (Zhao et al. 2021)."""
    if not blanks or found.scores is None:
        return found
    each = [probabilities(blank.logprobs) for blank in blanks]
    mean = [sum(column) / len(each) for column in zip(*each, strict=True)]
    calibrated = [s - math.log(max(m, 1e-300)) for s, m in zip(found.scores, mean, strict=True)]
    right = document.right or (int(document.answer or 0),)
    values = {**(found.values or {}), "acc_contextual": float(best(calibrated) in right)}
    return found.model_copy(update={"values": values})
