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


def choices(logits: Tensor, labels: Tensor, words: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of rows with one label each: the logits of `words` before it, and which of them it is.

    Args:
        logits: As of `token_nll`.
        labels: [batch, length], one of them in each row, and one of `words`.
        words: Token ids, in the order of the classes.

    Returns:
        float32 [batch, words] and int64 [batch].

    Raises:
        DataError: a label is none of `words`.
    """
    rows, places = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    assert rows.tolist() == list(range(len(labels))), "a row has one hidden word"
    aligned = logits[:, logits.shape[1] - labels.shape[1] :]
    known = torch.tensor(words, device=labels.device)
    is_right = labels[rows, places + 1][:, None] == known
    if not bool(is_right.any(dim=1).all()):
        raise DataError("a row has a word in its mask that no training row has; add one, or leave it out")
    right = is_right.int().argmax(dim=1)
    return aligned[rows, places].float()[:, known], right


def guessed(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the scored tokens of each row are the most probable ones; shapes as of `token_nll`."""
    best = logits[:, logits.shape[1] - labels.shape[1] :][:, :-1].argmax(dim=-1)
    return ((best == labels[:, 1:]) & (labels[:, 1:] != IGNORED)).sum(dim=1)
