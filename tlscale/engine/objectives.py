"""Objective terms: each a sum over a batch and the count that the sum is to be divided by.

Sums and counts are kept apart so that the loss of a step is one division over all micro-batches and
processes: accumulation and world size then don't change the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlscale.models.likelihood import scored, token_nll

PAIR_SCALE = 20.0


@dataclass(frozen=True)
class Objective:
    """`total(module, batch)` is a scalar tensor, `count(batch)` what to divide it by."""

    total: Callable[[nn.Module, Mapping[str, Any]], Tensor]
    count: Callable[[Mapping[str, Any]], int]


def _inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "labels"}


def pair_scores(module: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Cosine similarity of every anchor with every positive of the batch: [batch, batch]."""
    anchor = functional.normalize(module(**batch["anchor"]).embeddings.float(), dim=-1)
    positive = functional.normalize(module(**batch["positive"]).embeddings.float(), dim=-1)
    return anchor @ positive.T


def _total(module: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    if "anchor" in batch:
        scores = pair_scores(module, batch) * PAIR_SCALE
        own = torch.arange(len(scores), device=scores.device)
        return functional.cross_entropy(scores, own, reduction="sum")
    labels = batch["labels"]
    logits = module(**_inputs(batch)).logits
    if labels.dim() == 1:
        return functional.cross_entropy(logits.float(), labels, reduction="sum")
    return token_nll(logits, labels).sum()


def _count(batch: Mapping[str, Any]) -> int:
    if "anchor" in batch:
        return len(batch["anchor"]["input_ids"])
    labels: Tensor = batch["labels"]
    if labels.dim() == 1:
        return len(labels)
    return int(scored(labels).sum())


task = Objective(_total, _count)
"""The task's own loss: next-token or class cross-entropy; for pairs, in-batch negatives with scaled
cosine similarity (Henderson et al. 2017, arXiv:1705.00652)."""
