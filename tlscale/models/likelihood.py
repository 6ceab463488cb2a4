"""Likelihoods of tokens from logits, the one place where labels are shifted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tlscale.errors import DataError

IGNORED = -100


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each label by the logits before it, float32; 0 where it is -100.

    Args:
        logits: [batch, extra + length, vocabulary]; `extra` leading virtual tokens of prompt methods
            are left out.
        labels: [batch, length], aligned with the input tokens for a causal model.

    Returns:
        [batch, length - 1].
    """
    logits = logits[:, logits.shape[1] - labels.shape[1] :]
    return functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )


def scored(labels: Tensor) -> Tensor:
    """How many tokens of each row are scored: [batch, length] -> [batch]."""
    return (labels[:, 1:] != IGNORED).sum(dim=1)


def answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the places that are asked, and what they are to say.

    Args:
        logits: [batch, extra + length, vocabulary], `extra` virtual tokens of prompt methods first, or the
            asked places alone, as inside `places.at_labels`.
        labels: [batch, length], as of `token_nll`.

    Returns:
        [N, vocabulary] and int64 [N].
    """
    asked = labels[:, 1:] != IGNORED
    wanted = labels[:, 1:][asked]
    if are_chosen(logits, labels):
        return logits[0], wanted
    return logits[:, logits.shape[1] - labels.shape[1] :][:, :-1][asked], wanted


def are_chosen(logits: Tensor, labels: Tensor) -> bool:
    """Whether the logits are of the asked places alone; a whole row has more places than it can ask."""
    return tuple(logits.shape[:2]) == (1, int((labels[:, 1:] != IGNORED).sum()))


def choices(logits: Tensor, labels: Tensor, words: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of rows with one label each: the logits of `words` before it, and which of them it is.

    Args:
        logits: As of `answers`.
        labels: [batch, length], one of them in each row, and one of `words`.
        words: Token ids, in the order of the classes.

    Returns:
        float32 [batch, words] and int64 [batch].

    Raises:
        DataError: a label is none of `words`.
    """
    each, wanted = answers(logits, labels)
    assert scored(labels).tolist() == [1] * len(labels), "a row has one hidden word"
    known = torch.tensor(words, device=labels.device)
    is_right = wanted[:, None] == known
    if not bool(is_right.any(dim=1).all()):
        raise DataError("a row has a word in its mask that no training row has; add one, or leave it out")
    right = is_right.int().argmax(dim=1)
    return each.float()[:, known], right


def guessed(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the scored tokens of each row are the most probable ones; shapes as of `token_nll`."""
    best = logits[:, logits.shape[1] - labels.shape[1] :][:, :-1].argmax(dim=-1)
    return ((best == labels[:, 1:]) & (labels[:, 1:] != IGNORED)).sum(dim=1)
