"""Unsupervised domain adaptation: features and predictions of unlabelled rows drawn to the training rows'.

These are statistics of a whole batch. They are taken over the rows of all processes, with gradient, so
that the number of processes doesn't change them; gradient accumulation would, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tlscale.engine.objectives import Objective, Setting, rows_in
from tlscale.engine.view import TRAIN, Batches, View
from tlscale.errors import PlanError

OTHER = "unlabelled"
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels, as factors on the mean squared distance


def _statistic(value: Callable[[View], Tensor], setting: Setting, term: str) -> Objective:
    """A term whose value is one number for the rows of all processes together."""
    if setting.planned.batch.accumulation > 1:
        raise PlanError(
            f"train.objective.{term}: is a statistic of one pass, so gradient accumulation would change "
            "what it means; set train.gradient_accumulation_steps to 1 and a smaller train.train_batch_size"
        )

    def total(view: View) -> Tensor:
        return value(view) * rows_in(view.batches, OTHER)

    def count(batches: Batches) -> float:
        return rows_in(batches, OTHER)

    return Objective(total, count, (OTHER,))


def _both(view: View) -> tuple[Tensor, Tensor]:
    rows, others = (view.everywhere(view.features(stream), stream) for stream in (TRAIN, OTHER))
    return rows, others


def make_coral(options: Mapping[str, Any], setting: Setting) -> Objective:
    """Deep CORAL (Sun and Saenko 2016, arXiv:1607.01719): distance of the feature covariances."""
    return _statistic(lambda view: coral(*_both(view)), setting, "coral")


def coral(one: Tensor, other: Tensor) -> Tensor:
    """Squared Frobenius distance of the covariances over 4 d^2; [n, d] and [m, d]."""
    difference = _covariance(one) - _covariance(other)
    return difference.square().sum() / (4 * one.shape[1] ** 2)


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=0, keepdim=True)
    return centred.T @ centred / max(1, len(rows) - 1)


def make_mmd(options: Mapping[str, Any], setting: Setting) -> Objective:
    """Maximum mean discrepancy with several Gaussian kernels (Long et al. 2015, arXiv:1502.02791)."""
    return _statistic(lambda view: mmd(*_both(view)), setting, "mmd")


def mmd(one: Tensor, other: Tensor) -> Tensor:
    """Biased squared MMD, at least 0, averaged over five widths around the mean squared distance."""
    both = torch.cat([one, other])
    distances = torch.cdist(both, both).square()
    mean = distances.detach().sum() / max(1, len(both) * (len(both) - 1))
    kernel = torch.stack(
        [torch.exp(-distances / (width * mean.clamp(min=1e-12))) for width in WIDTHS]
    ).mean(0)
    first = len(one)
    same = kernel[:first, :first].mean() + kernel[first:, first:].mean()
    return same - 2 * kernel[:first, first:].mean()


def make_mcc(options: Mapping[str, Any], setting: Setting) -> Objective:
    """Minimum class confusion (Jin et al. 2020, arXiv:1912.03699)."""
    temperature = float(options["temperature"])
    return _statistic(
        lambda view: mcc(view.everywhere(view.logits(OTHER), OTHER), temperature), setting, "mcc"
    )


def mcc(logits: Tensor, temperature: float) -> Tensor:
    """Mean share of class pairs that unlabelled rows are torn between; [n, classes] -> 0 to 1."""
    chances = (logits / temperature).softmax(dim=-1)
    entropy = -(chances * (chances + 1e-5).log()).sum(dim=-1).detach()
    weight = 1 + torch.exp(-entropy)
    weight = len(logits) * weight / weight.sum()
    confusion = (chances * weight[:, None]).T @ chances
    confusion = confusion / confusion.sum(dim=1, keepdim=True)
    return (confusion.sum() - confusion.trace()) / logits.shape[1]
