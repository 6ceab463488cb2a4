"""The label-free gate: its estimate against planted truth, and where a user meets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tlscale.errors import RecipeError
from tlscale.evaluation.gate import Answers, Gain, Outcomes, information_gain
from tlscale.evaluation.stats import Interval
from tlscale.evaluation.types import Measurement, Outcome
from tlscale.outer.repeat import control
from tlscale.recipe.load import check
from tlscale.report.verdict import compare, judge
from tlscale.report.words import gate_sentence
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, write_lines

Rows = list[Outcome]
LEARNED, MET = 200, 400
CLASSES = ("no", "yes")


def rows(generator: np.random.Generator, count: int, spread: float, boost: float) -> Rows:
    """Rows of two classes with logits of this spread, right by their own chance, `boost` times as sure."""
    sure = np.abs(generator.normal(0, spread, count))
    right = generator.random(count) < 1 / (1 + np.exp(-sure))
    found = []
    for i, (logit, correct) in enumerate(zip(boost * sure, right, strict=True)):
        answer = i % 2 if correct else 1 - i % 2
        scores = [float(-np.log1p(np.exp(logit if at != answer else -logit))) for at in range(2)]
        one = Outcome(item=i, where=f"rows:{i}", scores=tuple(scores), prediction=CLASSES[answer])
        found.append(one.model_copy(update={"reference": CLASSES[i % 2]}))
    return found


def arm(seed: int, spread: float, boost: float = 1.0, seeds: int = 1) -> Answers:
    """An arm that tells rows it met apart by logits of `spread`; those it learned always by 2."""
    labelled = [rows(np.random.default_rng((seed, n, 0)), LEARNED, 2.0, boost) for n in range(seeds)]
    return Answers(
        labelled, [rows(np.random.default_rng((seed, n, 1)), MET, spread, boost) for n in range(seeds)]
    )


def blind(answers: Answers) -> Answers:
    """The same without any reference on the unlabelled rows."""
    hidden = [[one.model_copy(update={"reference": None}) for one in seed] for seed in answers.unlabelled]
    return Answers(answers.labelled, hidden)


def exact(spread: float) -> float:
    """The information that logits of this spread carry, in nats, by numbers of its own."""
    chance = 1 / (1 + np.exp(-np.random.default_rng(9).normal(0, spread, 200_000)))
    return float(np.log(2) + (chance * np.log(chance) + (1 - chance) * np.log(1 - chance)).mean())


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize(("spread", "wanted"), [(3.0, "keep"), (0.5, "refuse")])
def test_a_planted_gain_is_kept_and_a_planted_loss_refused(spread: float, wanted: str, seeds: int) -> None:
    # whichever says it more surely, five times or a third as sure as it should be
    adapted, plain = arm(0, spread, 5.0, seeds), arm(1, 1.2, 1 / 3, seeds)
    gain = information_gain(adapted, plain, CLASSES)
    assert gain.decision == wanted
    assert gain.interval.low < exact(spread) - exact(1.2) < gain.interval.high
    assert gain.adapted == pytest.approx(exact(spread), abs=0.05)
    assert gain == information_gain(blind(adapted), blind(plain), CLASSES)
    narrow = information_gain(adapted, plain, CLASSES, level=0.5).interval
    assert narrow.effect == gain.interval.effect
    assert narrow.high - narrow.low < 0.6 * (gain.interval.high - gain.interval.low)


def test_confidence_alone_is_no_information() -> None:
    modest = arm(0, 1.2)

    def surer(side: Outcomes) -> list[Rows]:
        return [[one.model_copy(update={"scores": raised(one)}) for one in seed] for seed in side]

    sure = Answers(surer(modest.labelled), surer(modest.unlabelled))
    gain = information_gain(sure, modest, CLASSES)
    assert gain.interval.effect == pytest.approx(0.0, abs=0.005)
    assert gain.decision == "undecided"


def raised(one: Outcome) -> tuple[float, ...]:
    """Its scores, six times as far apart."""
    logits = np.array(one.scores) * 6.0
    return tuple((logits - np.log(np.exp(logits).sum())).tolist())


def test_false_alarms_are_rare_where_adapting_changes_nothing() -> None:
    pairs = [(arm(2 * n, 1.2, 4.0), arm(2 * n + 1, 1.2, 0.5)) for n in range(20)]
    said = [information_gain(*both, CLASSES).decision for both in pairs]
    # 5 % are expected, and 5 of 20 come by chance less than once in three hundred times
    assert len(said) - said.count("undecided") <= 4


def test_a_decision_is_by_the_whole_interval_and_the_margin() -> None:
    ends = {
        (0.02, 0.04): "keep", (-0.04, -0.02): "refuse", (-0.01, 0.05): "undecided",
        (0.002, 0.006): "undecided", (-0.006, -0.002): "undecided",
    }  # fmt: skip
    for (low, high), wanted in ends.items():
        assert Gain(0.5, 0.5, Interval((low + high) / 2, low, high, 0.95, 0.01)).decision == wanted


def write_run(folder: Path, arms: Mapping[str, Answers], *, held_out: bool = True) -> Path:
    """A run directory, and one for each arm in it, with outcomes on test, unlabelled and held-out rows."""
    for name, answers in arms.items():
        layout = RunLayout(folder if name == "tuned" else RunLayout(folder).arm(name))
        layout.root.mkdir(parents=True, exist_ok=True)
        recipe = {"model": {"task": "sequence-classification"}}
        terms = {"objective": [{"name": "task"}, {"name": "coral"}]}
        stage = {"trainable": 1, "total": 2, "decisions": [], "stage": terms}
        plan = {"fingerprint": name, "recipe": recipe, "stages": [stage], "facts": {"labels": CLASSES}}
        layout.plan.write_text(json.dumps(plan))
        suites = {"target": answers.unlabelled[0], "unlabelled": blind(answers).unlabelled[0]}
        suites |= {"validation": answers.labelled[0]} if held_out else {}
        for suite, outcomes in suites.items():
            write_lines(
                layout.outcomes("tuned", suite), [o.model_dump(exclude_none=True) for o in outcomes]
            )
            measured = Measurement(
                suite=suite, arm="tuned", metric="infomax" if suite == "unlabelled" else "accuracy",
                value=0.5, stderr=None, n=len(outcomes), predictor="classifier", stage="train",
                outcomes="outcomes.jsonl",
            )  # fmt: skip
            append_line(layout.measurements, measured.model_dump())
    return folder


def test_a_verdict_has_the_gate_where_source_only_was_an_arm(tmp_path: Path) -> None:
    found = judge(write_run(tmp_path / "a", {"tuned": arm(0, 0.5), "source_only": arm(0, 2.0)}))
    assert found.gate is not None
    assert (found.gate.decision, found.word) == ("refuse", "NEGATIVE")
    assert (found.gate.against, found.gate.n_labelled, found.gate.n_unlabelled) == ("source_only", 200, 400)
    assert gate_sentence(found.gate).startswith("label-free gate: refuse; calibrated information -0.")
    assert [claim.name for claim in found.claims] == ["target", "retention"]
    assert "source_only" not in found.missing_arms
    alone = judge(write_run(tmp_path / "b", {"tuned": arm(0, 0.5)}))
    assert alone.gate is None
    assert "source_only" in alone.missing_arms


def test_a_comparison_has_it_too_or_says_what_it_lacks(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "plain", {"tuned": arm(0, 0.5)})
    gate = compare(plain, write_run(tmp_path / "better", {"tuned": arm(0, 2.0)})).gate
    assert gate is not None
    assert (gate.decision, gate.against) == ("keep", str(plain))
    bare = compare(plain, write_run(tmp_path / "bare", {"tuned": arm(0, 2.0)}, held_out=False))
    assert bare.gate is None
    assert any("data.validation_split" in reason for reason in bare.reasons)


def test_source_only_is_the_same_training_without_looking_at_the_target(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\none,a\ntwo,b\n")
    source = {"path": str(tmp_path / "rows.csv"), "text": "text", "label": "label"}
    terms = {"label_smoothing": 0.1, "coral": {"weight": 1}, "dann": {"weight": 1}}
    stages = [
        {
            "name": "one",
            "strategy": {"kind": "layer_decay", "head": "pooled"},
            "train": {"objective": {"mcc": {}}},
        },
        {"name": "two", "strategy": {"kind": "full"}, "train": {"max_steps": 2}},
    ]
    written: dict[str, Any] = {
        "version": 1, "name": "r",
        "model": {"model_name_or_path": "org/m", "task": "sequence-classification"},
        "data": {"train": source, "unlabelled": source}, "train": {"objective": terms}, "stages": stages,
        "evaluate": {"against": ["source_only"]},
    }  # fmt: skip
    plain = control(check(written, source="r"), "source_only")
    assert plain.train.objective.model_dump(exclude_unset=True) == {"label_smoothing": 0.1}
    assert [stage.train for stage in plain.stages] == [{"objective": {}}, {"max_steps": 2}]
    assert [stage.strategy for stage in plain.stages] == [stage["strategy"] for stage in stages]
    del written["data"]["unlabelled"]
    with pytest.raises(RecipeError, match=r"source_only.*data\.unlabelled"):
        check(written, source="r")
