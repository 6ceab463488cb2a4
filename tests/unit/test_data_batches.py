"""Padding and order: what a batch holds, and which examples make which step."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.data.loader import batches

PAD = 9


def test_causal_targets_are_aligned_and_padded_on_the_right():
    batch = collate(
        [
            Example(where="a", tokens=[1, 5, 6, 2], loss=[False, False, True, True]),
            Example(where="b", tokens=[1, 7], loss=[False, True]),
        ],
        task="causal-lm",
        pad_id=PAD,
    )
    assert batch["input_ids"].tolist() == [[1, 5, 6, 2], [1, 7, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 6, 2], [-100, 7, -100, -100]]


def test_a_pad_id_that_is_also_eos_stays_learned_where_it_is_eos():
    batch = collate(
        [
            Example(where="a", tokens=[1, 2], loss=[False, True]),
            Example(where="b", tokens=[1], loss=[False]),
        ],
        task="causal-lm",
        pad_id=2,
    )
    assert batch["labels"].tolist() == [[-100, 2], [-100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_other_tasks():
    texts = [
        Example(where="a", tokens=[1], label=3, pair=[4, 5]),
        Example(where="b", tokens=[1, 2], label=0, pair=[6]),
    ]
    batch = collate(texts, task="sequence-classification", pad_id=PAD, device=torch.device("cpu"))
    assert batch["labels"].tolist() == [3, 0]
    assert batch["input_ids"].tolist() == [[1, PAD], [1, 2]]
    pairs = collate(texts, task="sentence-embedding", pad_id=PAD, device=torch.device("cpu"))
    assert pairs["anchor"]["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert pairs["positive"]["input_ids"].tolist() == [[4, 5], [6, PAD]]
    images = collate(
        [Example(where="a", pixels=torch.ones(3, 2, 2), label=1)], task="image-classification", pad_id=0
    )
    assert images["pixel_values"].shape == (1, 3, 2, 2)
    features = collate(
        [Example(where="a", features=torch.ones(4), label=1)], task="image-classification", pad_id=0
    )
    assert (set(features), features["features"].shape) == ({"features", "labels"}, (1, 4))
    with pytest.raises(AssertionError, match="a: prepared for another task"):
        collate([Example(where="a", tokens=[1])], task="sequence-classification", pad_id=0)


SPLITS = [(12, 1, 1), (6, 2, 1), (3, 2, 2), (2, 3, 2), (1, 3, 4), (1, 12, 1), (1, 1, 12), (4, 1, 3)]


def of_all_ranks(n, micro, accumulation, world, epoch=0, seed=0):
    return [
        batches(n, micro=micro, accumulation=accumulation, world=world, rank=rank, seed=seed, epoch=epoch)
        for rank in range(world)
    ]


@pytest.mark.parametrize("n", [0, 1, 5, 11, 12, 13, 24, 31])
@pytest.mark.parametrize("shape", SPLITS)
def test_every_example_once_and_every_step_the_same_for_equal_products(n, shape):
    micro, accumulation, world = shape
    ranks = of_all_ranks(n, micro, accumulation, world)
    (alone,) = of_all_ranks(n, 12, 1, 1)
    assert {len(steps) for steps in ranks} == {-(-n // 12)}
    for s, (whole,) in enumerate(alone):
        parts = [part for steps in ranks for part in steps[s]]
        passes = min(accumulation, -(-len(whole) // world))
        assert [len(steps[s]) for steps in ranks] == [passes] * world
        assert sorted(i for part in parts for i in part) == sorted(whole)
        assert max(map(len, parts)) <= micro
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert sorted(i for steps in ranks for step in steps for part in step for i in part) == list(range(n))


def test_order_follows_seed_and_epoch():
    assert of_all_ranks(30, 4, 1, 1) == of_all_ranks(30, 4, 1, 1)
    assert of_all_ranks(30, 4, 1, 1) != of_all_ranks(30, 4, 1, 1, epoch=1)
    assert of_all_ranks(30, 4, 1, 1) != of_all_ranks(30, 4, 1, 1, seed=1)
    # Seeds and epochs are no sum: epoch 1 of seed 0 is not epoch 0 of seed 1.
    assert of_all_ranks(30, 4, 1, 1, epoch=1) != of_all_ranks(30, 4, 1, 1, seed=1)


def test_grouping_by_length_pads_less_and_keeps_every_example_once() -> None:
    generator = random.Random(0)
    lengths = [generator.choice((5, 20, 80)) for _ in range(203)]
    shape = {"micro": 4, "accumulation": 2, "world": 1, "rank": 0, "seed": 1, "epoch": 0}
    plain = batches(203, **shape)
    grouped = batches(203, **shape, lengths=lengths, grouped=True)
    assert sorted(i for step in grouped for micro in step for i in micro) == list(range(203))
    assert [sum(map(len, step)) for step in grouped] == [8] * 25 + [3]
    assert grouped == batches(203, **shape, lengths=lengths, grouped=True)
    assert grouped != batches(203, **{**shape, "epoch": 1}, lengths=lengths, grouped=True)

    def padded(steps: list[list[list[int]]]) -> int:
        return sum(len(m) * max(lengths[i] for i in m) for step in steps for m in step if m)

    assert padded(grouped) < 1.1 * sum(lengths) < padded(plain)


@pytest.mark.parametrize("n", [0, 1, 5, 12, 31])
@pytest.mark.parametrize("shape", SPLITS)
def test_with_lengths_too_every_example_comes_once_and_steps_are_the_same(n: int, shape: Any) -> None:
    micro, accumulation, world = shape
    generator = random.Random(n)
    lengths = [generator.randint(1, 40) for _ in range(n)]
    common = {"micro": micro, "accumulation": accumulation, "world": world, "seed": 0, "epoch": 0}
    ranks = [batches(n, **common, rank=rank, lengths=lengths) for rank in range(world)]
    alone = batches(n, micro=12, accumulation=1, world=1, rank=0, seed=0, epoch=0, lengths=lengths)
    for s, (whole,) in enumerate(alone):
        parts = [part for steps in ranks for part in steps[s]]
        assert len({len(steps[s]) for steps in ranks}) == 1
        assert sorted(i for part in parts for i in part) == sorted(whole)
        assert max(map(len, parts)) <= micro
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ranks_have_about_as_many_tokens_and_the_longest_example_comes_first() -> None:
    generator = random.Random(3)
    lengths = [1 + int(generator.lognormvariate(4, 0.7)) for _ in range(400)]
    lengths[333] = max(lengths) + 1
    common = {"micro": 4, "accumulation": 4, "world": 4, "seed": 0}

    def worst(epoch: int, given: list[int] | None) -> float:
        ranks = [batches(400, **common, epoch=epoch, rank=rank, lengths=given) for rank in range(4)]
        ratios = []
        for step in zip(*ranks, strict=True):
            tokens = [sum(lengths[i] for micro in micros for i in micro) for micros in step]
            ratios.append(max(tokens) / (sum(tokens) / 4))
        return sum(ratios) / len(ratios)

    # of the epoch's last, short step two ranks have a row more
    assert worst(0, lengths) < 1.05 < 1.2 < worst(0, None)
    first = batches(400, **common, epoch=0, rank=0, lengths=lengths)[0][0]
    assert 333 in first
    later = batches(400, **common, epoch=1, rank=0, lengths=lengths)
    assert sorted(len(step) for step in later) == sorted(
        len(s) for s in batches(400, **common, epoch=0, rank=0, lengths=lengths)
    )
