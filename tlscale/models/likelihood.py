"""Likelihoods of tokens from logits, the one place where labels are shifted."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

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


def guessed(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of the scored tokens of each row are the most probable ones; shapes as of `token_nll`."""
    best = logits[:, logits.shape[1] - labels.shape[1] :][:, :-1].argmax(dim=-1)
    return ((best == labels[:, 1:]) & (labels[:, 1:] != IGNORED)).sum(dim=1)
