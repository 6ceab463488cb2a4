"""R-Drop: two passes of the same rows under different dropout should answer alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tlscale.engine.objectives import Objective, Setting, task_count
from tlscale.engine.terms.base import divergence
from tlscale.engine.view import TRAIN, View, answered, at_tokens, keeping_random


def make_rdrop(options: Mapping[str, Any], setting: Setting) -> Objective:
    """Mean of both divergences between two passes (Liang et al. 2021, arXiv:2106.14448).

    The task's loss is that of the first pass alone; the paper adds that of the second.
    """

    def total(view: View) -> Tensor:
        batch = view.batches[TRAIN]
        one = view.answers()
        with keeping_random(one.device):
            other = at_tokens(answered(view.module, batch).logits, batch)
        return ((divergence(one, other, 1.0) + divergence(other, one, 1.0)) / 2).sum()

    return Objective(total, lambda batches: task_count(batches, TRAIN))
