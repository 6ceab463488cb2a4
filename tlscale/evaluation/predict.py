"""Predictors: a module and examples -> one outcome an example.

Examples are scored longest first in batches, and come back in their own order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tlscale.data.examples import Example
from tlscale.evaluation.types import RIGHT, Outcome
from tlscale.models.likelihood import choices, guessed, scored, token_nll
from tlscale.models.taskheads import Sizes, own_task

Collate = Callable[[Sequence[Example]], Mapping[str, Any]]
Indexed = tuple[int, Example]


def in_batches(examples: Sequence[Indexed], size: int) -> Iterator[list[Indexed]]:
    """Batches of at most `size`, longest examples first."""
    ordered = sorted(examples, key=lambda pair: (-len(pair[1].tokens or ()), pair[0]))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def token_likelihoods(
    module: nn.Module, examples: Sequence[Indexed], *, collate: Collate, size: int, guesses: bool = False
) -> list[Outcome]:
    """Negative log-likelihood of the supervised tokens of each example, summed, in nats.

    With `guesses`, `values` counts those that are the most probable ones.
    """
    outcomes = []
    for group in in_batches(examples, size):
        batch = dict(collate([example for _, example in group]))
        labels = batch.pop("labels")
        logits = module(**batch).logits
        sums = token_nll(logits, labels).sum(dim=1).tolist()
        counts = scored(labels).tolist()
        right = guessed(logits, labels).tolist() if guesses else counts
        for (item, example), total, tokens, hits in zip(group, sums, counts, right, strict=True):
            known = {RIGHT: float(hits)} if guesses else None
            outcomes.append(Outcome(item=item, where=example.where, nll=total, tokens=tokens, values=known))
    return outcomes


def words_in_masks(
    module: nn.Module, examples: Sequence[Indexed], words: Mapping[int, str], *, collate: Collate, size: int
) -> list[Outcome]:
    """The most probable of `words`, which are names by token, in the one mask of each example."""
    outcomes = []
    tokens = list(words)
    for group in in_batches(examples, size):
        batch = dict(collate([example for _, example in group]))
        labels = batch.pop("labels")
        scores, right = choices(module(**batch).logits, labels, tokens)
        outcomes += classified(group, scores.log_softmax(dim=-1), right, list(words.values()))
    return outcomes


def class_probabilities(
    module: nn.Module,
    examples: Sequence[Indexed],
    *,
    collate: Collate,
    size: int,
    labels: Sequence[str],
    tasks: Sizes = (),
) -> list[Outcome]:
    """The most probable class, and the negative log-likelihood of the right one.

    Where there are several `tasks`, among the classes of the row's own.
    """
    outcomes = []
    for group in in_batches(examples, size):
        batch = dict(collate([example for _, example in group]))
        right = batch.pop("labels")
        logits = own_task(module(**batch).logits.float(), right, tasks)
        outcomes += classified(group, logits.log_softmax(dim=-1), right, labels)
    return outcomes


def label_free(
    module: nn.Module, examples: Sequence[Indexed], *, collate: Collate, size: int, labels: Sequence[str]
) -> list[Outcome]:
    """The most probable class and every class's log-probability, of rows that have no label."""
    outcomes = []
    for group in in_batches(examples, size):
        batch = dict(collate([example for _, example in group]))
        batch.pop("labels")
        chances = module(**batch).logits.float().log_softmax(dim=-1)
        for (item, example), row in zip(group, chances.tolist(), strict=True):
            best = labels[row.index(max(row))]
            outcomes.append(Outcome(item=item, where=example.where, prediction=best, scores=tuple(row)))
    return outcomes


def classified(
    group: Sequence[Indexed], log_probabilities: torch.Tensor, right: torch.Tensor, labels: Sequence[str]
) -> list[Outcome]:
    """Outcomes from log-probabilities [rows, classes] and the right classes [rows]."""
    best = log_probabilities.argmax(dim=-1).tolist()
    losses = functional.nll_loss(log_probabilities, right, reduction="none").tolist()
    return [
        Outcome(
            item=item,
            where=example.where,
            nll=loss,
            prediction=labels[guess],
            reference=labels[int(truth)],
        )
        for (item, example), guess, loss, truth in zip(group, best, losses, right.tolist(), strict=True)
    ]


def nearest_label(
    encoder: nn.Module,
    examples: Sequence[Indexed],
    names: Sequence[Example],
    *,
    collate: Collate,
    size: int,
    labels: Sequence[str],
    tasks: Sizes = (),
) -> list[Outcome]:
    """Zero-shot: the class whose name, embedded as text, is most similar to the example.

    Yin et al. 2019 (arXiv:1909.00161), with sentence embeddings in place of entailment.
    """
    anchors = _embed(encoder, names, collate)
    outcomes = []
    for group in in_batches(examples, size):
        batch = dict(collate([example for _, example in group]))
        right = batch.pop("labels")
        vectors = functional.normalize(encoder(**batch).embeddings.float(), dim=-1)
        scores = own_task(vectors @ anchors.T * 20.0, right, tasks)
        outcomes += classified(group, scores.log_softmax(dim=-1), right, labels)
    return outcomes


def _embed(encoder: nn.Module, examples: Sequence[Example], collate: Collate) -> torch.Tensor:
    batch = dict(collate(examples))
    batch.pop("labels")
    return functional.normalize(encoder(**batch).embeddings.float(), dim=-1)


def paired_retrieval(
    encoder: nn.Module, examples: Sequence[Indexed], *, collate: Collate, size: int
) -> list[Outcome]:
    """Whether an anchor's nearest among all positives is its own."""
    anchors, positives = [], []
    for start in range(0, len(examples), size):
        batch = collate([example for _, example in examples[start : start + size]])
        anchors.append(functional.normalize(encoder(**batch["anchor"]).embeddings.float(), dim=-1))
        positives.append(functional.normalize(encoder(**batch["positive"]).embeddings.float(), dim=-1))
    best = (torch.cat(anchors) @ torch.cat(positives).T).argmax(dim=-1).tolist()
    return [
        Outcome(
            item=item,
            where=example.where,
            prediction=examples[guess][1].where,
            reference=example.where,
        )
        for (item, example), guess in zip(examples, best, strict=True)
    ]


def majority(examples: Sequence[Indexed], label: str, labels: Sequence[str]) -> list[Outcome]:
    """The answer of someone who knows only which class is commonest."""
    return [
        Outcome(item=item, where=example.where, prediction=label, reference=labels[example.label or 0])
        for item, example in examples
    ]


def generations(
    module: nn.Module,
    examples: Sequence[Indexed],
    *,
    tokenizer: Any,
    device: torch.device,
    max_new_tokens: int,
) -> list[Outcome]:
    """Greedy continuation of each prompt, stripped, against the reference completion."""
    outcomes = []
    language_model: Any = module
    for item, example in examples:
        prompt = torch.tensor([list(example.tokens or ())[: example.prompt_tokens]], device=device)
        made = language_model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        text = tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True)
        outcomes.append(
            Outcome(
                item=item,
                where=example.where,
                prediction=text.strip(),
                reference=example.reference.strip(),
            )
        )
    return outcomes
