"""Answers from a closed set: the right one is made likelier than the others, and the others less likely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tlscale.data.examples import Example
from tlscale.engine.objectives import Objective, Setting, rows_in
from tlscale.engine.view import TRAIN, Batch, Batches, View, keeping_random
from tlscale.errors import PlanError
from tlscale.models.likelihood import IGNORED, token_nll

Answer = tuple[int, ...]
SMALLEST = 1e-2  # what is left of 1 - p at least, as in the code of T-Few


def make_choices(options: Mapping[str, Any], setting: Setting) -> Objective:
    """T-Few's two losses beside the task's own (Liu et al. 2022, arXiv:2205.05638, sections 3.2 and 3.3).

    The choices are the distinct completions of the training rows; each row's prompt is scored with all of
    them, in one more pass. `length_normalised` weighs the cross-entropy over the choices' mean
    log-likelihoods, `unlikelihood` the mean of -log(1 - p) over the tokens of a row's wrong choices.

    Raises:
        PlanError: the completions are no closed set.
    """
    answers = closed_set(setting.examples, int(options["most"]))
    weights = float(options["length_normalised"]), float(options["unlikelihood"])

    def total(view: View) -> Tensor:
        batch = view.batches[TRAIN]
        right, asked = with_every(batch, answers)
        with keeping_random(view.device):
            logits = view.module(
                input_ids=asked["input_ids"], attention_mask=asked["attention_mask"]
            ).logits
        nll = token_nll(logits, asked["labels"])
        counted = asked["labels"][:, 1:] != IGNORED
        normalised, unlikely = losses(nll, counted, right.to(nll.device))
        return (weights[0] * normalised + weights[1] * unlikely).sum()

    def count(batches: Batches) -> float:
        return rows_in(batches)

    return Objective(total, count)


def closed_set(examples: Sequence[Example], most: int) -> tuple[Answer, ...]:
    """The distinct completions as token ids, sorted.

    Raises:
        PlanError: there is one, or more than `most`.
    """
    found = {tuple(e.tokens[e.prompt_tokens :]) for e in examples if e.tokens is not None}
    if not 2 <= len(found) <= most:
        raise PlanError(
            f"train.objective.choices: {len(found):,} different completions; answers of a closed set are "
            f"needed, from 2 to {most} (train.objective.choices.most)"
        )
    return tuple(sorted(found))


def with_every(batch: Batch, answers: Sequence[Answer]) -> tuple[Tensor, dict[str, Tensor]]:
    """Each row's prompt with each answer, and which answer is the row's own: int64 [rows].

    The rows of one prompt follow each other: [rows x answers, length], padded as the batch is.
    """
    labels: Tensor = batch["labels"]
    right, sequences, starts = [], [], []
    for ids, mask, targets in zip(batch["input_ids"], batch["attention_mask"], labels, strict=True):
        start = int((targets != IGNORED).int().argmax())
        real = ids[: int(mask.sum())].tolist()
        right.append(answers.index(tuple(real[start:])))
        sequences += [[*real[:start], *answer] for answer in answers]
        starts += [start] * len(answers)
    width = max(map(len, sequences))
    made = {
        "input_ids": [row + [0] * (width - len(row)) for row in sequences],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in sequences],
        "labels": [
            [IGNORED] * start + row[start:] + [IGNORED] * (width - len(row))
            for row, start in zip(sequences, starts, strict=True)
        ],
    }
    return torch.tensor(right), {k: torch.tensor(v, device=labels.device) for k, v in made.items()}


def losses(nll: Tensor, counted: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over mean log-likelihoods, and mean unlikelihood of wrong tokens: [rows] each.

    Args:
        nll: [rows x answers, length]; 0 where nothing is scored.
        counted: The same shape, true at the tokens of an answer.
        right: [rows].
    """
    shape = (len(right), -1, nll.shape[1])
    scores = -(nll.sum(dim=1) / counted.sum(dim=1)).view(len(right), -1)
    normalised = functional.cross_entropy(scores, right, reduction="none")
    wrong = torch.ones_like(scores, dtype=torch.bool).scatter(1, right[:, None], False)
    tokens = counted.view(shape) & wrong[:, :, None]
    surprise = -((1 - (-nll.view(shape)).exp()) + SMALLEST).log()
    unlikely = (surprise * tokens).sum(dim=(1, 2)) / tokens.sum(dim=(1, 2))
    return normalised, unlikely
