"""Paths -> passes: every question is asked once, of a row that sees exactly its path's tokens."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlscale.evaluation.scoring import schedule as plans
from tlscale.evaluation.scoring.encode import Path
from tlscale.evaluation.scoring.schedule import Pack, Pass, Push, Sorted
from tlscale.evaluation.scoring.tree import Tokens, branches, line

LONGEST = 90


@st.composite
def paths(draw: st.DrawFn) -> list[Path]:
    """Paths that share prefixes of all lengths, some the same, some one within another."""
    stems = [draw(st.lists(st.integers(0, 2), min_size=0, max_size=60)) for _ in range(3)]
    found = []
    for _ in range(draw(st.integers(1, 14))):
        stem = draw(st.sampled_from(stems))
        whole = stem[: draw(st.integers(0, 60))] + draw(
            st.lists(st.integers(0, 2), min_size=2, max_size=30)
        )
        scored = draw(st.integers(1, len(whole) - 1))
        found.append(Path(np.asarray(whole[:-1], np.int32), np.asarray(whole[-scored:], np.int32)))
    return found


def tokens_of(tree: Sorted, found: list[Path], step: Pass) -> Tokens:
    members = [(tree.order[m], found[tree.order[m]]) for m in step.members]
    if isinstance(step, Push):
        return line(members[0][1], step.depth, step.upto, members)
    shared = [step.depth]
    for before, member in zip(step.members, step.members[1:], strict=False):
        shared.append(int(tree.shared[member]) if member == before + 1 else step.depth)
    return branches(members, step.depth, shared)


def seen_by(tokens: Tokens, row: int, stack: list[int]) -> list[int]:
    """The tokens that a row sees, in the order of their positions."""
    mine = [j for j in range(row + 1) if row < tokens.ends[j]]
    places = [int(tokens.positions[j]) for j in mine]
    assert places == list(range(tokens.depth, tokens.depth + len(mine)))
    return stack[: tokens.depth] + [int(tokens.ids[j]) for j in mine]


@settings(max_examples=150, deadline=None)
@given(found=paths(), budget=st.integers(1, 200))
def test_every_question_is_asked_once_of_a_row_that_sees_its_path(found: list[Path], budget: int) -> None:
    tree = plans.arrange([path.inputs for path in found])
    steps = plans.schedule(tree, budget)
    stack: list[int] = []
    asked: Counter[tuple[int, int]] = Counter()
    for step in steps:
        tokens = tokens_of(tree, found, step)
        assert len(tokens.ids) == plans.tokens_of(tree, step)
        assert len(tokens.ids) <= (budget if isinstance(step, Pack) else 4 * budget)
        assert len(tokens.rows) == len(set(tokens.rows.tolist()))
        for asks, target, owner in zip(tokens.asked, tokens.targets, tokens.owners, strict=True):
            path = found[owner]
            seen = seen_by(tokens, int(tokens.rows[asks]), stack)
            assert seen == path.inputs[: len(seen)].tolist()
            whole = [
                *path.inputs[: len(path.inputs) - len(path.targets) + 1].tolist(),
                *path.targets.tolist(),
            ]
            assert target == whole[len(seen)]
            asked[int(owner), len(seen)] += 1
        if isinstance(step, Push):
            stack = stack[: step.depth] + tokens.ids.tolist()
    wanted = Counter(
        (owner, len(path.inputs) - back)
        for owner, path in enumerate(found)
        for back in range(len(path.targets))
    )
    assert asked == wanted


@settings(max_examples=60, deadline=None)
@given(found=paths(), budget=st.integers(1, 60), world=st.integers(1, 4))
def test_the_shares_of_all_ranks_are_all_passes_and_bring_what_they_stand_on(
    found: list[Path], budget: int, world: int
) -> None:
    tree = plans.arrange([path.inputs for path in found])
    steps = plans.schedule(tree, budget)
    costs = [plans.tokens_of(tree, step) for step in steps]
    parts = plans.shares(costs, world)
    assert [index for part in parts for index in part] == list(range(len(steps)))
    for part in parts:
        depths = {None: 0}
        for index in plans.with_ancestors(steps, set(part)):
            step = steps[index]
            assert depths[step.under] == step.depth
            if isinstance(step, Push):
                depths[index] = step.upto


def test_a_shared_prefix_is_computed_once() -> None:
    shots = np.arange(600) % 7
    made = [
        np.concatenate([shots, [d], np.arange(40), [o]]).astype(np.int32)
        for d in range(9)
        for o in range(4)
    ]
    tree = plans.arrange(made)
    steps = plans.schedule(tree, 128)
    assert sum(plans.tokens_of(tree, step) for step in steps) == 600 + 9 * (41 + 4)
    assert max(plans.tokens_of(tree, s) for s in steps if isinstance(s, Pack)) <= 128


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_shares_are_about_equal(world: int) -> None:
    costs = [3, 1, 4, 1, 5, 9, 2, 6] * 20
    sums = [sum(costs[i] for i in part) for part in plans.shares(costs, world)]
    assert max(sums) - min(sums) <= 2 * max(costs)
