"""Objective terms: each a sum over a batch and the count that the sum is to be divided by.

Sums and counts are kept apart so that the loss of a step is one division over all micro-batches and
processes: accumulation and world size then don't change the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional

from tlscale import plugins
from tlscale.data.examples import Example
from tlscale.engine.runtime import Runtime
from tlscale.engine.view import TRAIN, Batch, Batches, View
from tlscale.errors import PlanError
from tlscale.models.likelihood import IGNORED, answers, are_chosen, scored, token_nll
from tlscale.planning.types import PlannedStage

PAIR_SCALE = 20.0


class Learned(Protocol):
    """What has a state to save, as torch's modules and optimizers have."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Objective:
    """`total(view)` is a scalar tensor, `count(batches)` what to divide it by.

    `count` gets only the streams that have rows on this process; where it is 0, the term counts for
    nothing. `needs` names the streams besides the training rows. `after()` follows the last backward
    pass of a step, for terms that learn themselves. What they learn, modules and optimizers by name, is in
    `learned`: it is saved and restored with the rest of training, and is the same on every process.
    """

    total: Callable[[View], Tensor]
    count: Callable[[Batches], float]
    needs: tuple[str, ...] = ()
    after: Callable[[], None] = lambda: None
    learned: Mapping[str, Learned] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What a term may look at before the first step, with the weights as the stage begins.

    `module` is the model with its adapter, before any wrapping; `new_head` whether its head starts random;
    `examples` are the stage's training rows; `earlier` the folders of adapters that earlier stages merged
    into its base.
    """

    module: nn.Module
    planned: PlannedStage
    runtime: Runtime
    collate: Callable[[Sequence[Example]], Batch]
    streams: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    new_head: bool = False
    examples: Sequence[Example] = ()
    earlier: Sequence[Path] = ()


Maker = Callable[[Mapping[str, Any], Setting], Objective]
Terms = Sequence[tuple[float, Objective]]


def make_terms(setting: Setting) -> Terms:
    """The stage's terms with their weights; plugins by name or as `module:function`.

    Raises:
        PlanError: a term needs rows that the recipe doesn't give, or can't work on this model.
    """
    made = []
    for term in setting.planned.stage.objective:
        by_name = ":" not in term.name
        maker: Maker = (
            plugins.load("tlscale.objectives", term.name) if by_name else plugins.resolve(term.name)
        )
        objective = maker(term.options, setting)
        for stream in objective.needs:
            if not setting.streams.get(stream):
                raise PlanError(f"train.objective.{term.name}: needs rows; give data.{stream}")
        made.append((term.weight, objective))
    return made


def learned_by(terms: Terms) -> dict[str, Learned]:
    """What the terms learn themselves, by the place of the term and the name that it gives."""
    return {f"{at}.{name}": one for at, (_, term) in enumerate(terms) for name, one in term.learned.items()}


def rows_in(batches: Batches, stream: str = TRAIN) -> float:
    """How many rows a stream has here."""
    if stream not in batches:
        return 0.0
    batch = batches[stream]
    return float(len(next(iter(batch["anchor"].values() if "anchor" in batch else batch.values()))))


def pair_scores(view: View, stream: str) -> tuple[Tensor, Tensor]:
    """Cosine similarity of every anchor here with every positive anywhere: [own rows, all rows].

    Also which positive is each anchor's: int64 [own rows]. Negatives come from all processes, so that the
    loss is the same on any number of them. Collective.
    """
    batch = view.batches[stream]
    anchor = functional.normalize(view.module(**batch["anchor"]).embeddings.float(), dim=-1)
    positive = functional.normalize(view.module(**batch["positive"]).embeddings.float(), dim=-1)
    here = view.own(positive, stream)
    return anchor[: len(here)] @ view.everywhere(positive, stream).T, here


def task_loss(view: View, stream: str, smoothing: float) -> Tensor:
    """The summed cross-entropy of a stream's rows or tokens; rows that have weights count by them."""
    batch = view.batches[stream]
    if "anchor" in batch:
        scores, own = pair_scores(view, stream)
        scaled = scores * PAIR_SCALE
        return functional.cross_entropy(scaled, own, reduction="sum", label_smoothing=smoothing)
    labels: Tensor = batch["labels"]
    logits = view.output(stream).logits
    if "weights" in batch:
        each = functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
        weights: Tensor = batch["weights"]
        return (each * weights).sum()
    if labels.dim() == 1:
        return functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)
    if are_chosen(logits, labels):
        chosen, wanted = answers(logits, labels)
        return functional.cross_entropy(chosen.float(), wanted, reduction="sum", label_smoothing=smoothing)
    if not smoothing:
        return token_nll(logits, labels).sum()
    shifted = logits[:, logits.shape[1] - labels.shape[1] :][:, :-1].float().transpose(1, 2)
    return functional.cross_entropy(
        shifted, labels[:, 1:], ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )


def task_count(batches: Batches, stream: str) -> float:
    """Rows, pairs or scored tokens of a stream."""
    if stream not in batches:
        return 0.0
    batch = batches[stream]
    if "anchor" in batch:
        return float(len(batch["anchor"]["input_ids"]))
    labels: Tensor = batch["labels"]
    return float(len(labels)) if labels.dim() == 1 else float(scored(labels).sum())


def make_task(options: Mapping[str, Any], setting: Setting) -> Objective:
    """The task's own loss: next-token or class cross-entropy.

    For pairs, in-batch negatives with scaled cosine similarity (Henderson et al. 2017, arXiv:1705.00652).
    """
    return smoothed(float(options.get("label_smoothing", 0.0)))


def smoothed(smoothing: float) -> Objective:
    """The task's loss with label smoothing (Szegedy et al. 2016, arXiv:1512.00567)."""
    return Objective(
        lambda view: task_loss(view, TRAIN, smoothing), lambda batches: task_count(batches, TRAIN)
    )


task = smoothed(0.0)


def make_replay(options: Mapping[str, Any], setting: Setting) -> Objective:
    """The task's loss on rows of what the base could do before (Ratcliff 1990; Robins 1995)."""
    return Objective(
        lambda view: task_loss(view, "replay", 0.0),
        lambda batches: task_count(batches, "replay"),
        ("replay",),
    )
