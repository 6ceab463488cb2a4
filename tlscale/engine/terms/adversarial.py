"""Domain adaptation against a discriminator: features from which it can't tell the domains.

The discriminator learns to tell them, and the features get its gradient reversed, so that both are done in
one pass (Ganin et al. 2016); or they get that of being taken for the other domain (Tzeng et al. 2017). It
belongs to the term: it is no part of the model, but of checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import AdamW

from tlscale.engine.backend import statistics
from tlscale.engine.objectives import Learned, Objective, Setting, rows_in
from tlscale.engine.terms.base import evaluating
from tlscale.engine.view import TRAIN, Batches, View, inputs
from tlscale.errors import PlanError
from tlscale.models.heads import PooledClassifier

OTHER = "unlabelled"
WIDEST = 4096  # of the product of features and classes; beyond it, random projections stand in
STEEPNESS = 10.0


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return rows.view_as(rows)

    @staticmethod
    def backward(context: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return -context.factor * slopes[0], None


def reverse(rows: Tensor, factor: float) -> Tensor:
    """`rows` as they are, with the gradient turned round and multiplied by `factor`."""
    turned: Tensor = _Reversal.apply(rows, factor)  # type: ignore[no-untyped-call]
    return turned


def strength(progress: float) -> float:
    """From 0 at the start to almost 1 at the end, as in Ganin et al. 2016, so that noise comes late."""
    return 2.0 / (1.0 + math.exp(-STEEPNESS * progress)) - 1.0


class Conditioned(nn.Module):
    """Features and class probabilities in one vector a row: their outer product, or projections of it.

    Long et al. 2018 (arXiv:1705.10667), equations 5 and 6.
    """

    def __init__(self, features: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.of_features: Tensor
        self.of_classes: Tensor
        self.whole = features * classes <= WIDEST
        self.width = features * classes if self.whole else WIDEST
        if not self.whole:
            self.register_buffer("of_features", torch.randn(features, WIDEST, generator=generator))
            self.register_buffer("of_classes", torch.randn(classes, WIDEST, generator=generator))

    def forward(self, features: Tensor, chances: Tensor) -> Tensor:
        if self.whole:
            return (chances[:, :, None] * features[:, None, :]).flatten(1)
        projected: Tensor = (features @ self.of_features) * (chances @ self.of_classes)
        return projected / math.sqrt(WIDEST)


def make_dann(options: Mapping[str, Any], setting: Setting) -> Objective:
    """DANN (Ganin et al. 2016, arXiv:1505.07818): the discriminator sees the features."""
    _, width, _ = _shape(setting, "dann")
    return _against(options, setting, width, lambda view, stream: view.features(stream))


def make_cdan(options: Mapping[str, Any], setting: Setting) -> Objective:
    """CDAN (Long et al. 2018, arXiv:1705.10667): it sees the features with the predicted classes."""
    module, width, classes = _shape(setting, "cdan")
    conditioned = Conditioned(width, classes, torch.Generator().manual_seed(0))
    conditioned.to(next(module.parameters()).device)

    def seen(view: View, stream: str) -> Tensor:
        rows: Tensor = conditioned(view.features(stream), view.logits(stream).softmax(dim=-1).detach())
        return rows

    return _against(options, setting, conditioned.width, seen)


def _shape(setting: Setting, term: str) -> tuple[PooledClassifier, int, int]:
    module = setting.module
    if not isinstance(module, PooledClassifier):
        raise PlanError(
            f"train.objective.{term}: aligns the features under a head of our own; set head: pooled"
        )
    return module, module.head.output.in_features, module.head.output.out_features


def make_adda(options: Mapping[str, Any], setting: Setting) -> Objective:
    """ADDA (Tzeng et al. 2017, arXiv:1702.05464): a target encoder against that of the source, the start.

    The discriminator tells features of training rows by the encoder of the start from those of
    data.unlabelled by the encoder now (equation 4). That one gets the gradient of inverted labels (equation
    9), and the discriminator none of it. Both means are over as many rows of either domain.

    Raises:
        PlanError: the head is not our own.
    """
    module, width, _ = _shape(setting, "adda")
    player, kept, after = _player(options, setting, width)
    start = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    start |= {name: buffer.clone() for name, buffer in statistics(module).items()}

    def total(view: View) -> Tensor:
        with torch.no_grad(), evaluating(module):
            known = functional_call(module, start, kwargs=inputs(view.batches[TRAIN]), strict=False)
        theirs, ours = known.features.float(), view.features(OTHER)
        right = _told(player(theirs), 1.0) * (0.0 if TRAIN in view.absent else 1.0)
        right = right + _told(player(ours.detach()), 0.0)
        unmoved = {name: p.detach() for name, p in player.named_parameters()}
        return 2 * (right + _told(functional_call(player, unmoved, (ours,)), 1.0))

    return Objective(total, _rows_of_both, (OTHER,), after, kept)


def _told(logits: Tensor, domain: float) -> Tensor:
    """Summed cross-entropy of [rows, 1] answers of a discriminator, all rows being of one domain."""
    wanted = torch.full_like(logits, domain)
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")


def _rows_of_both(batches: Batches) -> float:
    return rows_in(batches, TRAIN) + rows_in(batches, OTHER)


def _against(options: Mapping[str, Any], setting: Setting, width: int, seen: Any) -> Objective:
    player, kept, after = _player(options, setting, width)

    def total(view: View) -> Tensor:
        parts = []
        for stream, domain in ((TRAIN, 1.0), (OTHER, 0.0)):
            loss = _told(player(reverse(seen(view, stream), strength(view.progress))), domain)
            parts.append(loss * (0.0 if stream in view.absent else 1.0))
        return torch.stack(parts).sum()

    return Objective(total, _rows_of_both, (OTHER,), after, kept)


def _player(
    options: Mapping[str, Any], setting: Setting, width: int
) -> tuple[nn.Module, Mapping[str, Learned], Callable[[], None]]:
    """A discriminator of `width` numbers a row, what of it is kept, and its own step after the model's."""
    device, world = setting.runtime.device, setting.runtime.world
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        player = nn.Sequential(
            nn.Linear(width, int(options["hidden"])), nn.ReLU(), nn.Linear(int(options["hidden"]), 1)
        ).to(device)
    rate = setting.planned.stage.update.learning_rate * float(options["lr_scale"])
    optimizer = AdamW(player.parameters(), lr=rate)

    def after() -> None:
        for parameter in player.parameters():
            if world > 1 and parameter.grad is not None:
                # as for the model: each process has its part of the sum, times the number of processes
                dist.all_reduce(parameter.grad)
                parameter.grad /= world
        if all(p.grad is None or bool(p.grad.isfinite().all()) for p in player.parameters()):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return player, {"player": player, "optimizer": optimizer}, after
