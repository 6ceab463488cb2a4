"""Examples come from the training rows alone, never the item itself, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlscale.errors import DataError, UsageError
from tlscale.evaluation.tasks import similar
from tlscale.evaluation.tasks.shots import RANKINGS, content, selector
from tlscale.evaluation.tasks.task import Document
from tlscale.recipe.evaluate import Selection

TOPICS = ("bread and butter", "rain and wind", "ships at sea", "stars at night")
TRAIN = tuple(
    Document(query=f"about {TOPICS[at % 4]} number {at}", answer=at % 3, id=str(at), where=f"train:{at}")
    for at in range(24)
)
ITEM = Document(query="what of ships at sea today", answer=0, id="item", where="test:0")
KINDS: tuple[Selection, ...] = tuple(RANKINGS)


@pytest.mark.parametrize("kind", KINDS)
@given(shots=st.integers(0, 20), seed=st.integers(0, 5), at=st.integers(0, 23))
def test_as_many_as_asked_and_never_the_item(kind: Selection, shots: int, seed: int, at: int) -> None:
    own = Document(query=TRAIN[at].query.upper(), answer=1, id="copy", where="test:1")
    for item in (ITEM, own):
        chosen = selector(kind, TRAIN, shots=shots, seed=seed)(item)
        assert len(chosen) == len(set(map(content, chosen))) == shots
        assert {document.id for document in chosen} <= {document.id for document in TRAIN}
        assert content(item) not in set(map(content, chosen))
        assert chosen == selector(kind, TRAIN, shots=shots, seed=seed)(item)


def test_fixed_is_one_draw_for_all_and_random_one_for_each() -> None:
    other = Document(query="another question", id="other")
    kinds: dict[Any, bool] = {"fixed": True, "balanced": True, "diverse": True, "random": False}
    for kind, same in kinds.items():
        choose = selector(kind, TRAIN, shots=6, seed=0)
        assert (choose(ITEM) == choose(other)) is same, kind
    assert selector("fixed", TRAIN, shots=6, seed=0)(ITEM) != selector("fixed", TRAIN, shots=6, seed=1)(
        ITEM
    )


def test_first_takes_file_order() -> None:
    assert selector("first", TRAIN, shots=3, seed=9)(ITEM) == TRAIN[:3]


def test_balanced_has_as_many_of_each_answer() -> None:
    chosen = selector("balanced", TRAIN, shots=9, seed=0)(ITEM)
    assert Counter(document.answer for document in chosen) == {0: 3, 1: 3, 2: 3}


def test_nearest_stands_right_before_the_question() -> None:
    chosen = selector("nearest", TRAIN, shots=6, seed=0)(ITEM)
    assert all("ships at sea" in document.query for document in chosen)
    known = similar.index([content(document) for document in TRAIN]).similarities(content(ITEM))
    near = [known[TRAIN.index(document)] for document in chosen]
    assert all(before <= after for before, after in pairwise(near))


def test_diverse_covers_what_there_is() -> None:
    chosen = selector("diverse", TRAIN, shots=4, seed=0)(ITEM)
    assert len({document.query.partition(" number")[0] for document in chosen}) == 4


def test_an_order_seed_shuffles_the_same_examples() -> None:
    plain = selector("fixed", TRAIN, shots=8, seed=0)(ITEM)
    orders = [selector("fixed", TRAIN, shots=8, seed=0, order_seed=seed)(ITEM) for seed in range(4)]
    names = {tuple(document.id for document in order) for order in orders}
    assert len(names) == 4
    assert all(sorted(order) == sorted(document.id for document in plain) for order in names)


def test_too_few_rows_are_said() -> None:
    with pytest.raises(UsageError, match="30 shots are asked for, but there are 24 rows"):
        selector("fixed", TRAIN, shots=30, seed=0)
    copies = (TRAIN[0],) * 5
    with pytest.raises(DataError, match="0 rows are left to take 2 examples from"):
        selector("first", copies, shots=2, seed=0)(TRAIN[0])
