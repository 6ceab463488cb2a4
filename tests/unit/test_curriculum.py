"""Curricula: what may come when, every example exactly once, however a step is shared out."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.unit.facts import LABELS
from tests.unit.facts import llama as llama_facts
from tests.unit.test_engine_loop import trained, training
from tests.unit.test_engine_regular import asking, equal
from tests.unit.test_plan_checks import CPU, recipe_of, stage_of
from tests.unit.test_resume import Killed
from tlscale.data.curriculum import available, paced
from tlscale.data.examples import Example
from tlscale.data.marked import Marked
from tlscale.data.types import lengths
from tlscale.engine.feed import micro_batches
from tlscale.engine.loop import Training
from tlscale.errors import PlanError
from tlscale.planning.checks import check
from tlscale.planning.types import Batch
from tlscale.recipe.train import Curriculum
from tlscale.runs.ledger import audit

BY_LENGTH = Curriculum(by="length", start=0.25)


def test_pacing_by_hand() -> None:
    linear = Curriculum(by="length", pacing="linear", start=0.2, until=0.5)
    assert [available(linear, place) for place in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.2, 0.6, 1, 1])
    root = Curriculum(by="length", start=0.6)
    assert [available(root, place) for place in (0.0, 0.5, 1.0)] == pytest.approx([0.6, 0.8246211, 1.0])
    for asked in (linear, root, BY_LENGTH):
        assert all(available(asked, place / 100) >= place / 100 for place in range(101))


@pytest.mark.parametrize("hardest_first", [False, True])
@pytest.mark.parametrize("count", [1, 7, 40, 101])
def test_every_index_once_and_none_before_its_time(count: int, hardest_first: bool) -> None:
    asked = Curriculum(by="length", start=0.2, until=0.8, hardest_first=hardest_first)
    order = list(range(count))
    random.Random(1).shuffle(order)
    hard = [float((index * 37) % count) for index in range(count)]
    found = paced(order, hard, asked, total=8)
    assert sorted(found) == list(range(count))
    ranks = {
        index: rank
        for rank, index in enumerate(sorted(order, key=lambda i: -hard[i] if hardest_first else hard[i]))
    }
    for start in range(0, count, 8):
        opened = max(int(-(-available(asked, start / count) * count // 1)), start + 8)
        assert all(ranks[index] < opened for index in found[start : start + 8])


def test_a_start_of_all_rows_is_the_order_as_it_was() -> None:
    order = [3, 1, 4, 0, 2]
    assert paced(order, [5.0, 4.0, 3.0, 2.0, 1.0], Curriculum(by="length", start=1.0), total=2) == order


def marked(made: Training) -> Training:
    rows = made.examples
    assert isinstance(rows, tuple)
    return replace(made, examples=Marked(rows, difficulty=[float(n) for n in lengths(rows)]))


def steps(made: Training, batch: Batch, curriculum: Curriculum | None) -> list[tuple[int, list[int]]]:
    planned = asking(made, curriculum=curriculum).planned.model_copy(update={"batch": batch})
    ranks = []
    for rank in range(batch.world):
        runtime = replace(made.runtime, rank=rank, world=batch.world)
        ranks.append(list(micro_batches(made.examples, planned, runtime, seed=3, steps=10, done=0)))
    return [
        (shares[0][0], sorted(i for _, micros in shares for micro in micros for i in micro))
        for shares in zip(*ranks, strict=True)
    ]


def test_steps_are_the_same_however_they_are_shared_out(tmp_path: Path) -> None:
    made = marked(training(tmp_path, rows=40))
    one = steps(made, Batch(micro=8, accumulation=1, world=1), BY_LENGTH)
    assert one == steps(made, Batch(micro=4, accumulation=1, world=2), BY_LENGTH)
    assert one == steps(made, Batch(micro=2, accumulation=2, world=2), BY_LENGTH)
    assert isinstance(made.examples, Marked)
    sizes = made.examples.lengths()
    means = [sum(sizes[i] for i in rows) / len(rows) for epoch, rows in one if epoch == 0]
    assert means[0] < means[-1]
    assert means[:2] == sorted(means[:2])
    plain = steps(made, Batch(micro=8, accumulation=1, world=1), None)
    assert one[5:] == plain[5:], "the second epoch is shuffled as ever"
    assert one[:5] != plain[:5]
    off = steps(made, Batch(micro=8, accumulation=1, world=1), BY_LENGTH.model_copy(update={"start": 1.0}))
    assert off == plain


def test_it_trains_goes_on_and_takes_every_example_once(tmp_path: Path) -> None:
    given: dict[str, Any] = {"rows": 20, "epochs": 3.0, "save_steps": 2}
    asked = BY_LENGTH.model_copy(update={"epochs": 2})
    straight, _, whole = trained(asking(marked(training(tmp_path / "a", **given)), curriculum=asked))
    killed = asking(replace(marked(training(tmp_path / "b", **given)), watcher=Killed(5)), curriculum=asked)
    with pytest.raises(KeyboardInterrupt):
        trained(killed)
    resumed, _, rest = trained(asking(marked(training(tmp_path / "b", **given)), curriculum=asked))
    assert rest.losses == whole.losses[4:]
    assert equal(straight, resumed)
    proven = audit(tmp_path / "b" / "ledger", "train")
    assert proven is not None
    assert proven.problems == ()
    assert proven.complete == 3


def test_a_curriculum_of_all_rows_changes_no_bit(tmp_path: Path) -> None:
    plain, _, losses = trained(training(tmp_path / "a"))
    off = asking(marked(training(tmp_path / "b")), curriculum=BY_LENGTH.model_copy(update={"start": 1.0}))
    other, _, more = trained(off)
    assert more.losses == losses.losses
    assert equal(plain, other)


def test_marked_examples_are_those_they_were_made_of() -> None:
    rows = tuple(Example(where=str(i), tokens=[1] * i) for i in range(1, 5))
    made = Marked(rows, weights=[1.0, 2.0, 3.0, 4.0])
    assert [row.weight for row in made] == [1.0, 2.0, 3.0, 4.0]
    assert [row.tokens for row in made[1:3]] == [[1, 1], [1, 1, 1]]
    assert made.lengths() == [1, 2, 3, 4]
    assert all(a < b for a, b in pairwise(made.lengths()))
    assert torch.equal(torch.tensor(Marked(rows)[3].tokens), torch.ones(4, dtype=torch.int64))


ROWS = {"path": "rows.csv", "text": "text", "label": "label"}
CLASSIFY = "sequence-classification"
LABELLED = {"train": ROWS, "test": ROWS, "unlabelled": ROWS, "validation": ROWS}


@pytest.mark.parametrize(
    ("task", "train", "data", "said"),
    [
        (
            "causal-lm",
            {"curriculum": {"by": "length"}},
            {"packing": True},
            "packed ones have no difficulty",
        ),
        ("causal-lm", {"curriculum": {"by": "length"}, "group_by_length": True}, {}, "in another way"),
        (CLASSIFY, {"curriculum": {"by": "loss"}}, {}, "its head is new"),
        ("causal-lm", {"importance": {"kind": "covariate"}}, {"unlabelled": ROWS}, "for a classifier"),
        (CLASSIFY, {"importance": {"kind": "covariate"}}, {}, "give data.unlabelled"),
        (CLASSIFY, {"importance": {"kind": "label_shift"}}, {"unlabelled": ROWS}, "give data.validation"),
    ],
)
def test_what_cannot_be_meant(task: str, train: Any, data: Any, said: str) -> None:
    recipe = recipe_of(task, train=train, data={"train": ROWS, "test": ROWS, **data})
    facts = llama_facts(labels=LABELS if task == CLASSIFY else ())
    with pytest.raises(PlanError, match=said):
        check(recipe, facts, (stage_of(recipe, facts),), CPU)


def test_images_have_no_length_and_what_can_be_meant_is_let_through() -> None:
    facts = llama_facts(labels=LABELS)
    images = recipe_of("image-classification", train={"curriculum": {"by": "length"}})
    with pytest.raises(PlanError, match="images have no length; use by: loss"):
        check(images, facts, (stage_of(images, facts),), CPU)
    for importance in ({"kind": "covariate"}, {"kind": "label_shift", "soft": True}):
        train = {"importance": importance, "curriculum": {"by": "column", "column": "hard"}}
        recipe = recipe_of(CLASSIFY, train=train, data=LABELLED)
        check(recipe, facts, (stage_of(recipe, facts),), CPU)
    loss = recipe_of(train={"curriculum": {"by": "loss"}})
    check(loss, llama_facts(), (stage_of(loss, llama_facts()),), CPU)


def test_a_strength_of_0_is_no_weighting() -> None:
    recipe = recipe_of(
        CLASSIFY, train={"importance": {"kind": "covariate", "strength": 0.0}}, data=LABELLED
    )
    assert stage_of(recipe, llama_facts(labels=LABELS)).importance is None


def test_a_column_goes_with_by_column() -> None:
    with pytest.raises(ValidationError, match="give column with by: column"):
        Curriculum(by="column")
    with pytest.raises(ValidationError, match="give column with by: column"):
        Curriculum(by="length", column="hard")
