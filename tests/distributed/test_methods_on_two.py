"""Every strategy and every objective: one process equals two, and a term of no weight changes no bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed import kit
from tests.distributed.methods import CLASSIFIERS, MASKED, OF_LANGUAGE, STEPS, TASKS, TERMS, bench
from tlscale import plugins

ALONE = ("fusion", "adda", "pet", "chosen", "paced", "varied")
NAMES = (*CLASSIFIERS, *TASKS, *ALONE, *(f"masked-{s}" for s in MASKED))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, kit.Outcome]]:
    root = tmp_path_factory.mktemp("methods")
    on = bench(root, root / "on-1")
    alone = kit.run([*on.cases(1), *on.weightless()], root / "on-1", processes=1)
    return [alone, kit.run(on.cases(2), root / "on-2", processes=2)]


@pytest.mark.parametrize("name", NAMES)
def test_one_process_equals_two(name: str, outcomes: list[dict[str, kit.Outcome]]) -> None:
    one, two = outcomes[0][name if name in outcomes[0] else "masked-none"], outcomes[1][name]
    assert not one.error, one.error
    assert not two.error, two.error
    assert len(one.losses) == (2 * STEPS if name == "adda" else STEPS)
    assert kit.loss_difference(two, one) <= 2e-5
    assert kit.weight_difference(two, one) <= 2e-5


@pytest.mark.parametrize("name", TERMS)
def test_a_term_of_no_weight_changes_no_bit(name: str, outcomes: list[dict[str, kit.Outcome]]) -> None:
    plain = outcomes[0]["plain-language" if name in OF_LANGUAGE else "plain-classifier"]
    beside = outcomes[0][f"with-{name}"]
    assert not beside.error, beside.error
    assert beside.terms == ("task", name)
    assert plain.losses == beside.losses
    assert kit.weight_difference(beside, plain) == 0.0


def test_nothing_is_left_out(tmp_path: Path, outcomes: list[dict[str, kit.Outcome]]) -> None:
    """A new strategy, or term with a weight, is here by itself; an objective that stands alone is named."""
    recipes = bench(tmp_path, tmp_path).cases(2)
    parts = [part for recipe in recipes for part in recipe.get("stages", (recipe,))]
    # the first trains nothing, and the second becomes one of the others
    done = {part["strategy"]["kind"] for part in parts} | {"none", "auto"}
    assert done == set(plugins.BUILTINS["tlscale.strategies"])
    learned = {term for outcome in outcomes[1].values() for term in outcome.terms}
    assert learned == set(plugins.BUILTINS["tlscale.objectives"])
