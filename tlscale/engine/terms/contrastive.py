"""Few-shot learning by pairs: texts of one class drawn together, and of others apart, before a head is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tlscale.engine.objectives import Objective, Setting, rows_in
from tlscale.engine.view import TRAIN, Batches, View
from tlscale.errors import PlanError


def make_contrastive(options: Mapping[str, Any], setting: Setting) -> Objective:
    """SetFit's contrastive loss (Tunstall et al. 2022, arXiv:2209.11055) on all pairs of a step's rows.

    A row is encoded once a step, however many pairs it is in. Pairs are of the rows of all processes.

    Raises:
        PlanError: rows of a step would be split over several passes, and pairs of them lost.
    """
    if setting.planned.batch.accumulation > 1:
        raise PlanError(
            "strategy.kind: contrastive: pairs are of the rows of one pass, so gradient accumulation would "
            "lose some; set train.gradient_accumulation_steps to 1 and a smaller train.train_batch_size"
        )

    def total(view: View) -> Tensor:
        rows = view.everywhere(view.features(TRAIN), TRAIN)
        labels = view.everywhere(view.labels(TRAIN).float(), TRAIN)
        return pair_loss(rows, labels) * rows_in(view.batches)

    def count(batches: Batches) -> float:
        return rows_in(batches)

    return Objective(total, count)


def pair_loss(rows: Tensor, labels: Tensor) -> Tensor:
    """Squared distance of each pair's cosine from 1 within a class and from 0 between classes.

    Pairs of either kind count half, as where the rarer kind is repeated. A row with itself is no pair: its
    loss is 0. `rows` [n, features], `labels` [n].
    """
    unit = functional.normalize(rows, dim=-1)
    first, second = torch.triu_indices(len(rows), len(rows), offset=1, device=rows.device)
    cosines = (unit[first] * unit[second]).sum(dim=-1)
    alike = labels[first] == labels[second]
    losses = (cosines - alike.float()).square()
    return (_mean(losses[alike]) + _mean(losses[~alike])) / 2


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(1, len(losses))
