"""Control arms that are fitted in a moment, seeds taken together, and what a verdict says of its rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tests.unit import report_runs
from tlscale.evaluation.metrics import accuracy, nll
from tlscale.evaluation.tfidf import Tfidf, chosen_strength, logistic
from tlscale.evaluation.types import Outcome
from tlscale.planning.seal import fingerprint
from tlscale.report.ensemble import together
from tlscale.report.verdict import judge
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, write_text

TEXTS = [
    "my card was declined at the shop", "the card machine declined it", "where is my new card?",
    "when will the new card arrive", "top up by bank transfer", "a transfer to top up my account",
    "exchange rate for euros", "Is the exchange rate good? The rate...", "declined again, my card",
]  # fmt: skip
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0])


def test_weights_of_words_are_those_of_scikit_learn() -> None:
    ours, theirs = Tfidf.fit(TEXTS), TfidfVectorizer()
    expected = theirs.fit_transform(TEXTS).toarray()
    assert list(ours.words) == list(theirs.get_feature_names_out())
    np.testing.assert_allclose(ours(TEXTS).toarray(), expected, atol=1e-12)
    unseen = ["an unknown word, and a card", "nothing here", ""]
    np.testing.assert_allclose(ours(unseen).toarray(), theirs.transform(unseen).toarray(), atol=1e-12)


@pytest.mark.parametrize("strength", [1.0, 100.0])
def test_the_classifier_is_that_of_scikit_learn(strength: float) -> None:
    features = Tfidf.fit(TEXTS)(TEXTS)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=2000).fit(features, LABELS)
    ours = logistic(features, LABELS, 4, strength=strength)
    np.testing.assert_allclose(np.exp(ours(features)), theirs.predict_proba(features), atol=2e-4)
    dense = logistic(features.toarray(), LABELS, 4, strength=strength)
    np.testing.assert_allclose(dense(features.toarray()), ours(features), atol=1e-6)


def test_the_penalty_is_chosen_only_where_that_can_be_told() -> None:
    assert chosen_strength(TEXTS, LABELS, 4, seed=0) is None
    rows = [f"{'red' if i % 2 else 'blue'} thing {i}" for i in range(60)]
    assert chosen_strength(rows, np.arange(60) % 2, 2, seed=0) in (1.0, 10.0, 100.0)


def member(*answers: tuple[str, float]) -> dict[tuple[str, int], Outcome]:
    return {
        (f"t:{i}", i): Outcome(item=i, where=f"t:{i}", prediction=said, reference="a", nll=-math.log(p))
        for i, (said, p) in enumerate(answers)
    }


def test_an_ensemble_by_hand() -> None:
    members = [
        member(("a", 0.8), ("a", 0.6), ("b", 0.1), ("b", 0.3)),
        member(("a", 0.6), ("b", 0.3), ("c", 0.2), ("a", 0.5)),
        member(("b", 0.1), ("b", 0.2), ("a", 0.9), ("a", 0.4)),
    ]
    joined = together(members)
    assert [one.prediction for one in joined] == ["a", "b", "b", "a"], "a tie goes to the first"
    shares = [math.exp(-(one.nll or 0.0)) for one in joined]
    assert shares == pytest.approx([0.5, 1.1 / 3, 0.4, 0.4])
    assert accuracy(joined)[0] == 0.5
    mean = sum(nll(list(one.values()))[0] for one in members) / 3
    assert nll(joined)[0] < mean, "by Jensen's inequality"
    del members[2]["t:3", 3]
    assert len(together(members)) == 3, "only items that every member has"


def run(folder: Path, seed: int, *, times: int = 1, **evaluate: object) -> Path:
    """A finished run whose result was scored `times` times on the test rows."""
    report_runs.write_run(folder, seed=seed)
    layout, plan = RunLayout(folder), report_runs.plan(folder, seed=seed)
    recipe = plan.recipe.model_copy(update={"evaluate": plan.recipe.evaluate.model_copy(update=evaluate)})
    changed = plan.model_copy(update={"recipe": recipe})
    write_text(
        layout.plan, changed.model_copy(update={"fingerprint": fingerprint(changed)}).model_dump_json()
    )
    split = str(evaluate.get("split", "test"))
    for arm in ("base", *["tuned"] * times):
        row = {"time": 11.0, "event": "scored", "suite": "target", "arm": arm, "split": split, "items": 12}
        append_line(layout.events, row)
    return folder


def test_seeds_together_are_an_arm(tmp_path: Path) -> None:
    for seed in range(3):
        run(tmp_path / f"seed-{seed}", seed)
    (ensemble,) = [arm for arm in judge(tmp_path).arms if arm.arm == "ensemble"]
    assert (ensemble.metric, ensemble.value, ensemble.n_seeds) == ("accuracy", 0.75, 3)
    assert not [arm for arm in judge(tmp_path / "seed-0").arms if arm.arm == "ensemble"]


def test_a_second_look_at_the_test_rows_is_said(tmp_path: Path) -> None:
    once, twice = (judge(run(tmp_path / str(n), 0, times=n)).reasons for n in (1, 2))
    assert not [reason for reason in once if "scored" in reason]
    assert [reason for reason in twice if "scored 2 times with this run's result" in reason]
    chosen = judge(run(tmp_path / "v", 0, times=2, split="validation")).reasons
    assert [reason for reason in chosen if reason.startswith("Judged on the validation rows")]
    assert not [reason for reason in chosen if "scored 2 times" in reason]


def test_trial_counts_are_said_and_unequal_ones_called_so(tmp_path: Path) -> None:
    equal = judge(run(tmp_path / "a", 0, trials={"tuned": 6, "scratch": 6})).reasons
    assert "Settings tried on the validation rows before this run: tuned 6, scratch 6." in equal
    (said,) = [
        r for r in judge(run(tmp_path / "b", 0, trials={"tuned": 9, "scratch": 2})).reasons if "tried" in r
    ]
    assert "favours the one with more" in said
