"""Staying near the base's answers, without a second model in memory.

With an adapter the base is the same model with the adapter switched off. Where weights themselves train,
a copy of those stands in for them in one forward pass without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tlscale.engine.objectives import Objective, Setting, task_count
from tlscale.engine.view import Batch, View, answered, at_tokens, inputs
from tlscale.errors import PlanError
from tlscale.models.heads import core
from tlscale.models.names import as_peft
from tlscale.models.places import at_labels


def make_kl_to_base(options: Mapping[str, Any], setting: Setting) -> Objective:
    """Kullback-Leibler divergence from the base's answers to the model's, in nats a row or token.

    On the training rows this is learning without forgetting (Li and Hoiem 2016, arXiv:1606.09282), with
    T^2 as Hinton et al. 2015 scale it.
    """
    stream, temperature = str(options["on"]), float(options["temperature"])
    reference = _reference(setting)

    def total(view: View) -> Tensor:
        batch = view.batches[stream]
        ours = view.answers(stream)
        return divergence(ours, at_tokens(reference(batch), batch), temperature).sum()

    return Objective(
        total, lambda batches: task_count(batches, stream), (stream,) if stream != "train" else ()
    )


def divergence(logits: Tensor, reference: Tensor, temperature: float) -> Tensor:
    """T^2 KL(reference || logits) over the last dimension: [rows, classes] -> [rows], in nats."""
    ours = (logits / temperature).log_softmax(dim=-1)
    theirs = (reference / temperature).log_softmax(dim=-1)
    pointwise = functional.kl_div(ours, theirs, reduction="none", log_target=True)
    return pointwise.sum(dim=-1) * temperature**2


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, and each part in its own mode again after."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    yield
    for part in training:
        part.training = True


def _reference(setting: Setting) -> Callable[[Batch], Tensor]:
    module = setting.module
    if setting.new_head:
        raise PlanError(
            "train.objective.kl_to_base: the head is new, so the base has no answers to stay near to; use "
            "l2_sp or replay"
        )
    peft = as_peft(core(module))
    if peft is not None:

        @torch.no_grad()
        def without_adapter(batch: Batch) -> Tensor:
            with evaluating(module), peft.disable_adapter():
                logits: Tensor = answered(module, batch).logits
            return logits

        return without_adapter
    if setting.runtime.planned.backend not in ("single", "ddp"):
        raise PlanError(
            "train.objective.kl_to_base: where weights themselves train it needs them whole on every "
            "process; use an adapter (strategy kind: peft), or hardware.sharding: none"
        )
    start = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def as_begun(batch: Batch) -> Tensor:
        with evaluating(module), at_labels(module, batch.get("labels")):
            logits: Tensor = functional_call(module, start, kwargs=inputs(batch), strict=False).logits
        return logits

    return as_begun
