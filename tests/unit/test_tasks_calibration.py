"""Calibrations take out what was planted, and metrics say what their definitions say."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tlscale.evaluation import metrics
from tlscale.evaluation.requests import ChoiceScores
from tlscale.evaluation.tasks import calibration
from tlscale.evaluation.tasks.outcome import outcome
from tlscale.evaluation.tasks.prompt import Style, item
from tlscale.evaluation.tasks.task import Document, Rows, Task
from tlscale.evaluation.types import Outcome

LABELS = ("good", "bad", "so-so")
BIAS = np.array([4.0, 0.0, -2.0])
TASK = Task(
    name="t", summary="", kind="classification", test=(Rows(path="x"),), metrics=("acc",),
    document=lambda row: Document(), prompt=lambda text: f"{text} is", labels=LABELS, unconditional="is",
)  # fmt: skip


def planted(n: int = 300) -> list[tuple[int, np.ndarray]]:
    """Right answers, and log-probabilities that are right but for a bias towards the first label."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(n):
        right = int(random.integers(3))
        scores = random.normal(size=3) * 0.5 + BIAS
        scores[right] += 2.0
        found.append((right, scores - np.log(np.exp(scores).sum())))
    return found


def share(outcomes: list[Outcome], name: str) -> float:
    return metrics.metric(name)(outcomes)[0]


def test_a_planted_bias_is_taken_out() -> None:
    made = []
    blank = ChoiceScores(tuple(BIAS - np.log(np.exp(BIAS).sum())), (1, 1, 1))
    for index, (right, scores) in enumerate(planted()):
        document = Document(query="x is", text="x", choices=LABELS, answer=right)
        asked = item(TASK, document, (), Style(contextual=True, pmi=True))
        answer = ChoiceScores(tuple(scores), (1, 1, 1), tuple(BIAS))
        made.append(outcome(TASK, asked, [answer, blank, blank, blank], index, LABELS))
    made = calibration.batch(made, [(right,) for right, _ in planted()])
    assert share(made, "acc") < 0.5
    for name in ("acc_contextual", "acc_pmi", "acc_batch"):
        assert share(made, name) > 0.85, name


@pytest.mark.parametrize("hot", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(hot: float) -> None:
    generator = random.Random(1)
    scores, right = [], []
    for _ in range(4000):
        row = [generator.gauss(0, 2) for _ in range(4)]
        weights = [math.exp(s) for s in row]
        right.append(generator.choices(range(4), weights)[0])
        scores.append([s * hot for s in row])
    assert calibration.temperature(scores, right) == pytest.approx(hot, rel=0.1)


def test_a_temperature_lowers_loss_and_calibration_error() -> None:
    generator = random.Random(2)
    outcomes, right = [], []
    for index in range(2000):
        row = [generator.gauss(0, 1) for _ in range(3)]
        answer = generator.choices(range(3), [math.exp(s) for s in row])[0]
        scores = tuple(s * 4 for s in row)
        best = max(range(3), key=lambda at: scores[at])
        outcomes.append(
            Outcome(
                item=index, where=f"x:{index}", scores=scores, values={"acc": float(best == answer)},
                nll=calibration._nll(scores, answer, 1.0),
            )
        )  # fmt: skip
        right.append(answer)
    at = calibration.temperature([o.scores or () for o in outcomes[:500]], right[:500])
    found = calibration.tempered(outcomes[500:], right[500:], at)
    assert share(found, "nll_temperature") < share(found, "nll") - 0.2
    assert share(found, "ece_temperature") < 0.05 < share(found, "ece")


def test_auroc_is_that_of_scikit_learn_ties_included() -> None:
    generator = random.Random(3)
    pairs = [(round(generator.random(), 1), generator.random() < 0.3) for _ in range(200)]
    outcomes = [
        Outcome(item=i, where="x", values={"confidence": c, "positive": float(p)})
        for i, (c, p) in enumerate(pairs)
    ]
    expected = roc_auc_score([p for _, p in pairs], [c for c, _ in pairs])
    assert metrics.auroc(outcomes)[0] == pytest.approx(expected)


def test_out_of_scope_recall_keeps_95_in_100_in_scope() -> None:
    inside = [
        Outcome(item=i, where="x", values={"confidence": i / 100, "positive": 1.0}) for i in range(100)
    ]
    outside = [
        Outcome(item=i, where="x", values={"confidence": c, "positive": 0.0})
        for i, c in enumerate((0.0, 0.04, 0.05, 0.9))
    ]
    assert metrics.oos_recall([*inside, *outside])[0] == 0.5


def test_perplexities_are_over_all_words_or_bytes() -> None:
    texts = [
        Outcome(item=0, where="x", nll=6.0, tokens=4, values={"words": 2.0, "bytes": 9.0}),
        Outcome(item=1, where="x", nll=2.0, tokens=2, values={"words": 2.0, "bytes": 7.0}),
    ]
    assert share(texts, "word_perplexity") == pytest.approx(math.exp(2.0))
    assert share(texts, "byte_perplexity") == pytest.approx(math.exp(0.5))
    assert share(texts, "bits_per_byte") == pytest.approx(0.5 / math.log(2))


def test_clean_scores_leave_contaminated_items_out() -> None:
    rows = [
        Outcome(item=i, where="x", values={"acc": float(i < 3), "contaminated": float(i < 2)})
        for i in range(4)
    ]
    assert (share(rows, "acc"), share(rows, "acc_clean"), share(rows, "contaminated")) == (0.75, 0.5, 0.5)
