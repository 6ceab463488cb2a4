"""Learning from pairs: the loss is SetFit's over its pairs, and needs the rows of a step together."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.unit.test_engine_loop import Heard, llama, training
from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.engine.loop import train
from tlscale.engine.objectives import Setting, make_terms
from tlscale.engine.terms.choices import closed_set, make_choices
from tlscale.engine.terms.contrastive import pair_loss
from tlscale.engine.view import View
from tlscale.errors import PlanError
from tlscale.models.heads import PooledClassifier, PooledHead
from tlscale.planning.types import Term

CLASSES = torch.tensor([0.0, 0, 0, 1, 1, 1, 2, 2, 2, 2])


def test_loss_is_that_of_setfit_over_its_own_pairs() -> None:
    """Of its pairs without those of a text with itself, whose loss is 0 in both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import losses
        from setfit import sampler
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


ANSWERS = ((7, 8, 2), (9, 2), (10, 11, 12, 2))


def questions(count: int) -> tuple[Example, ...]:
    """Prompts of different lengths, each with one of the answers."""
    made = []
    for i in range(count):
        prompt = [1, *(13 + (i * k) % 17 for k in range(1, 3 + i % 3))]
        answer = ANSWERS[i % 3]
        tokens, loss = [*prompt, *answer], [False] * len(prompt) + [True] * len(answer)
        made.append(Example(where=f"q:{i}", tokens=tokens, loss=loss, prompt_tokens=len(prompt)))
    return tuple(made)


def test_choices_are_the_formulas_of_t_few(tmp_path: Path) -> None:
    made = training(tmp_path)
    rows, module = questions(5), llama().eval()
    setting = Setting(module, made.planned, made.runtime, made.collate, examples=rows)
    for shares in ((1.0, 0.0), (0.0, 1.0), (0.7, 0.2)):
        options = {"length_normalised": shares[0], "unlikelihood": shares[1], "most": 16}
        objective = make_choices(options, setting)
        batches = {"train": made.collate(rows)}
        value = float((objective.total(View(module, batches)) / objective.count(batches)).detach())
        assert value == pytest.approx(by_hand(module, rows, *shares), rel=1e-4)
    halves = [{"train": made.collate(part)} for part in (rows[:2], rows[2:])]
    parts = sum(float(objective.total(View(module, half)).detach()) for half in halves)
    assert parts / 5 == pytest.approx(value, rel=1e-5)


@torch.no_grad()
def by_hand(module: nn.Module, rows: tuple[Example, ...], normalised: float, unlikely: float) -> float:
    """Both losses, one prompt and one answer at a time."""
    total = 0.0
    for i, row in enumerate(rows):
        scores, wrong = [], []
        for k, answer in enumerate(ANSWERS):
            tokens = [*list(row.tokens or ())[: row.prompt_tokens], *answer]
            chances = module(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
            each = [float(chances[row.prompt_tokens - 1 + t, token]) for t, token in enumerate(answer)]
            scores.append(sum(each) / len(each))
            wrong += each if k != i % 3 else []
        total += normalised * -float(torch.tensor(scores).log_softmax(0)[i % 3])
        total += unlikely * -sum(math.log(1 - math.exp(one) + 0.01) for one in wrong) / len(wrong)
    return total / len(rows)


def test_choices_teach_and_a_tiny_weight_changes_no_bit(tmp_path: Path) -> None:
    def taught(name: str, *terms: Term) -> tuple[nn.Module, list[float]]:
        made = training(tmp_path / name, epochs=6.0)
        stage = made.planned.stage.model_copy(update={"objective": terms})
        planned = made.planned.model_copy(update={"stage": stage})
        heard, module = Heard(), llama(dropout=0.1)
        torch.manual_seed(4)
        train(module, replace(made, planned=planned, examples=questions(24), watcher=heard))
        return module, heard.losses

    options = {"length_normalised": 1.0, "unlikelihood": 1.0, "most": 16}
    plain, losses = taught("a", Term())
    same, more = taught("b", Term(), Term(name="choices", weight=1e-30, options=options))
    assert more == losses
    for mine, theirs in zip(plain.parameters(), same.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    _, alone = taught("c", Term(name="choices", options=options))
    assert alone[-1] < 0.9 * alone[0]


def test_open_answers_are_no_choices() -> None:
    with pytest.raises(PlanError, match="from 2 to 2"):
        closed_set(questions(6), 2)
    with pytest.raises(PlanError, match="1 different completions"):
        closed_set(questions(1), 16)
