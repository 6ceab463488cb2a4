"""Next-token likelihoods from logits, the one place where labels are shifted."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

IGNORED = -100


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each next token, in float32; 0 where `labels` is -100.

    Args:
        logits: [batch, extra + length, vocabulary]; `extra` leading virtual tokens of prompt methods
            are left out.
        labels: [batch, length], aligned with the input tokens.

    Returns:
        [batch, length - 1].
    """
    logits = logits[:, logits.shape[1] - labels.shape[1] :]
    return functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )


def scored(labels: Tensor) -> Tensor:
    """How many next tokens of each row are scored: [batch, length] -> [batch]."""
    return (labels[:, 1:] != IGNORED).sum(dim=1)
