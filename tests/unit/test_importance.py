"""Weights for another domain: planted shifts recovered, formulas by hand, and what they do to a loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from tlscale.data.collate import collate
from tlscale.data.marked import Marked
from tlscale.data.types import Example
from tlscale.engine.objectives import task_count, task_loss
from tlscale.engine.view import View, inputs
from tlscale.errors import DataError
from tlscale.models.heads import PooledClassifier, PooledHead
from tlscale.probes.importance import class_weights, density_ratio, effective_rows, settled

NAMES = ("a", "b", "c")


def answers(labels: np.ndarray, wrong: float, generator: np.random.Generator) -> np.ndarray:
    """One-hot answers, a share of them wrong in a lopsided way."""
    said = np.where(generator.random(len(labels)) < wrong, (labels + 1) % 3, labels)
    return np.eye(3)[said]


def test_label_shift_is_the_solution_of_its_equations() -> None:
    """By hand: two classes, 80 % and 90 % right, target shares .75 and .25 of balanced source rows."""
    labels = np.repeat([0, 1], 100)
    said = np.concatenate([np.repeat([0, 1], [80, 20]), np.repeat([0, 1], [10, 90])])
    told_target = np.array([0.75 * 0.8 + 0.25 * 0.1, 0.75 * 0.2 + 0.25 * 0.9])
    found = class_weights(np.eye(2)[said], labels, told_target[None, :], NAMES[:2])
    assert found == pytest.approx([1.5, 0.5])


def test_a_planted_label_shift_is_recovered() -> None:
    generator = np.random.default_rng(0)
    source = generator.choice(3, 4000, p=[1 / 3, 1 / 3, 1 / 3])
    target = generator.choice(3, 4000, p=[0.6, 0.2, 0.2])
    found = class_weights(answers(source, 0.3, generator), source, answers(target, 0.3, generator), NAMES)
    planted = np.bincount(target) / np.bincount(source)
    assert found == pytest.approx(planted, rel=0.1)
    assert found[0] / found[1] == pytest.approx(3.0, rel=0.1)
    naive = answers(target, 0.3, generator).mean(axis=0) * 3
    assert abs(naive[0] / planted[0] - 1) > 0.1, "counting answers alone is worse"


def test_classes_that_can_t_be_told_apart_are_an_error() -> None:
    labels = np.array([0, 1, 0, 1])
    with pytest.raises(DataError, match="on the 4 validation rows: no row is of c; give more"):
        class_weights(np.eye(3)[labels], labels, np.eye(3)[labels], NAMES)
    three = np.array([0, 1, 2])
    with pytest.raises(DataError, match="it never answers c"):
        class_weights(np.eye(3)[[0, 1, 1]], three, np.eye(3)[three], NAMES)
    with pytest.raises(DataError, match="it takes classes for each other"):
        class_weights(np.full((3, 3), 1 / 3), three, np.eye(3)[three], NAMES)


def test_a_density_ratio_is_that_of_the_densities() -> None:
    """Two Gaussians a distance of 1 apart: the logarithm of the ratio is x - 1/2."""
    generator = np.random.default_rng(1)
    source, target = generator.normal(0, 1, (3000, 1)), generator.normal(1, 1, (1000, 1))
    ratio = density_ratio(source, target, seed=0)
    middle = np.abs(source[:, 0]) < 1.5
    assert np.log(ratio[middle]) == pytest.approx(source[middle, 0] - 0.5, abs=0.25)
    weights = settled(ratio, strength=1.0, most=10.0)
    assert (weights * source[:, 0]).mean() == pytest.approx(1.0, abs=0.15), "the target's mean"
    same = density_ratio(source[:1500], source[1500:], seed=0)
    assert effective_rows(settled(same, strength=1.0, most=10.0)) > 0.98 * 1500


def test_weights_are_1_on_average_and_effective_rows_say_what_is_left() -> None:
    weights = settled(np.array([0.0, 1.0, 3.0]), strength=1.0, most=10.0)
    assert weights == pytest.approx([0.0, 0.75, 2.25])
    assert settled(np.array([1.0, 4.0]), strength=0.5, most=10.0) == pytest.approx([2 / 3, 4 / 3])
    cut = settled(np.array([1.0, 1.0, 1.0, 97.0]), strength=1.0, most=2.0)
    assert cut.mean() == pytest.approx(1.0)
    assert effective_rows(np.ones(5)) == 5
    assert effective_rows(np.array([1.0, 0.0, 0.0])) == 1
    assert settled(np.array([0.0, 9.0]), strength=0.0, most=10.0) == pytest.approx([1.0, 1.0])
    with pytest.raises(DataError, match="count for nothing"):
        settled(np.zeros(3), strength=1.0, most=10.0)


def rows(count: int) -> tuple[Example, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        Example(where=str(i), label=i % 3, features=torch.randn(4, generator=generator))
        for i in range(count)
    )


@torch.no_grad()
def test_the_loss_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    module = PooledClassifier(torch.nn.Identity(), "mean", PooledHead(4, 3, 0), normalize=False)
    weights = [0.5, 2.0, 0.0, 1.5]
    marked = Marked(rows(4), weights=weights)
    assert marked.lengths() == [0, 0, 0, 0]
    batch = collate(marked[:], task="sequence-classification", pad_id=0)
    assert set(inputs(batch)) == {"features"}
    view = View(module, {"train": batch})
    each = functional.cross_entropy(view.logits(), batch["labels"], reduction="none")
    assert float(task_loss(view, "train", 0.0)) == pytest.approx(
        float((each * torch.tensor(weights)).sum())
    )
    assert task_count(view.batches, "train") == 4
    plain = collate(rows(4), task="sequence-classification", pad_id=0)
    assert "weights" not in plain
    ones = collate(Marked(rows(4), weights=[1.0] * 4)[:], task="sequence-classification", pad_id=0)
    alike = [float(task_loss(View(module, {"train": b}), "train", 0.1)) for b in (plain, ones)]
    assert alike[0] == pytest.approx(alike[1], rel=1e-6)
    assert replace(marked[1], weight=None).where == rows(4)[1].where
