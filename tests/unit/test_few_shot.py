"""Learning from pairs: the loss is SetFit's over its pairs, and needs the rows of a step together."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.unit.test_engine_loop import Heard, training
from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.engine.loop import train
from tlscale.engine.objectives import Setting, make_terms
from tlscale.engine.terms.contrastive import pair_loss
from tlscale.engine.view import View
from tlscale.errors import PlanError
from tlscale.models.heads import PooledClassifier, PooledHead
from tlscale.planning.types import Term

CLASSES = torch.tensor([0.0, 0, 0, 1, 1, 1, 2, 2, 2, 2])


def test_loss_is_that_of_setfit_over_its_own_pairs() -> None:
    """Of its pairs without those of a text with itself, whose loss is 0 in both."""
    sampler = pytest.importorskip("setfit.sampler")
    losses = pytest.importorskip("sentence_transformers.losses")
    torch.manual_seed(0)
    rows = torch.randn(len(CLASSES), 6)
    names = [f"text {i}" for i in range(len(CLASSES))]
    pairs = sampler.ContrastiveDataset(names, CLASSES.tolist(), False, sampling_strategy="unique")
    kinds = {
        label: [p for p in made if p["sentence_1"] != p["sentence_2"]]
        for label, made in ((1.0, pairs.pos_pairs), (0.0, pairs.neg_pairs))
    }
    assert sum(map(len, kinds.values())) == len(list(itertools.combinations(names, 2)))

    class Ready(nn.Module):
        """Stands where a sentence encoder would: its texts are embedded already."""

        def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return batch

    cosine = losses.CosineSimilarityLoss(Ready())
    theirs = []
    for label, made in kinds.items():
        sides = [
            {"sentence_embedding": rows[[names.index(p[side]) for p in made]]}
            for side in ("sentence_1", "sentence_2")
        ]
        theirs.append(float(cosine(sides, torch.full((len(made),), label))))
    assert float(pair_loss(rows, CLASSES)) == pytest.approx(sum(theirs) / 2, rel=1e-5)


def test_its_gradient_brings_a_class_together() -> None:
    torch.manual_seed(1)
    rows = nn.Parameter(torch.randn(len(CLASSES), 4))
    optimizer = torch.optim.SGD([rows], lr=0.5)
    first = float(pair_loss(rows, CLASSES).detach())
    for _ in range(200):
        optimizer.zero_grad()
        pair_loss(rows, CLASSES).backward()
        optimizer.step()
    assert float(pair_loss(rows, CLASSES).detach()) < first / 20
    unit = functional.normalize(rows.detach(), dim=-1)
    alike = CLASSES[:, None] == CLASSES
    assert float((unit @ unit.T)[alike].min()) > 0.8


def test_one_class_or_no_pairs_of_a_class_are_no_accident() -> None:
    rows = torch.randn(3, 4)
    assert torch.isfinite(pair_loss(rows, torch.zeros(3)))
    assert torch.isfinite(pair_loss(rows, torch.arange(3.0)))
    assert float(pair_loss(rows[:1], torch.zeros(1))) == 0.0


class Plain(nn.Module):
    """A backbone that gives its inputs through one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)


def test_a_term_beside_the_task_and_what_it_refuses(tmp_path: Path) -> None:
    made = training(tmp_path, micro=8)
    stage = made.planned.stage.model_copy(update={"objective": (Term(name="contrastive"),)})
    planned = made.planned.model_copy(update={"stage": stage})
    torch.manual_seed(2)
    head = PooledHead(4, 3, 0)
    module = PooledClassifier(Plain(), "mean", head, normalize=True)
    rows = tuple(
        Example(where=f"r:{i}", features=torch.randn(4), label=int(c)) for i, c in enumerate(CLASSES)
    )
    batches = partial(collate, task="sequence-classification", pad_id=0)
    given = replace(
        made, planned=planned, examples=rows, collate=batches, watcher=Heard(),
        scales={"head.output.weight": 1.0, "head.output.bias": 1.0},
    )  # fmt: skip
    ((weight, objective),) = make_terms(Setting(module, planned, made.runtime, batches))
    batch = {"train": batches(rows)}
    expected = pair_loss(torch.stack([row.features for row in rows if row.features is not None]), CLASSES)
    value = objective.total(View(module, batch)) / objective.count(batch)
    assert weight == 1.0
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-5)
    split = planned.model_copy(update={"batch": planned.batch.model_copy(update={"accumulation": 2})})
    with pytest.raises(PlanError, match="accumulation would lose some"):
        train(module, replace(given, planned=split))
