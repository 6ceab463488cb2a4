"""Searching settings: what may be written, what is drawn, what is stopped, and what is best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tlscale.errors import RecipeError, UsageError
from tlscale.outer.repeat import control
from tlscale.outer.space import draw, grid
from tlscale.outer.sweep import own_settings, program
from tlscale.outer.trials import Asked
from tlscale.recipe.load import check
from tlscale.recipe.search import Space, Sweep, written_space
from tlscale.report.blocks import Figure, Table
from tlscale.report.sweep_page import document
from tlscale.report.sweeps import Search, SweepResult, Trial, front
from tlscale.runs.sweep import SweepLayout

RATES = {"train.learning_rate": Space(low=1e-4, high=1e-1, log=True), "strategy.r": Space(choices=(4, 8))}
SWEEP = Sweep(parameters=RATES, trials=12)


def raw(folder: Path, **sections: Any) -> dict[str, Any]:
    rows = folder / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)))
    source = {"path": str(rows), "text": "text", "label": "label"}
    return {
        "version": 1,
        "name": "x",
        "model": {"model_name_or_path": "builtin:pico", "task": "sequence-classification"},
        "data": {"train": source, "validation": source, "test": source},
        "strategy": {"kind": "peft", "method": "lora"},
        "sweep": {"parameters": {"train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}},
        **sections,
    }


def asked(written: dict[str, Any]) -> Asked:
    return Asked(written, "r.yaml", {}, offline=True)


def rate_of(one: Any) -> float:
    rate = one.parameters["train.learning_rate"]
    assert isinstance(rate, float)
    return rate


def trial(number: int, value: float | None, *, losses: tuple[float, ...] = (), **more: Any) -> Trial:
    facts = {"state": "complete", "parameters": {"train.learning_rate": 1e-3, "strategy.r": 4}, **more}
    return Trial(number=number, folder=f"tuned/{number:03d}", value=value, losses=losses, **facts)


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("1..8", {"low": 1, "high": 8}),
        ("0.5..0.75", {"low": 0.5, "high": 0.75}),
        ("log:1e-4..1e-2", {"low": 1e-4, "high": 1e-2, "log": True}),
        ("4,8,16", {"choices": [4, 8, 16]}),
        ("linear,cosine", {"choices": ["linear", "cosine"]}),
    ],
)
def test_spaces_of_the_command_line(text: str, space: dict[str, Any]) -> None:
    assert written_space(text) == space


@pytest.mark.parametrize("text", ["", "log:4,8", "a..b", "true..3"])
def test_what_is_no_space(text: str) -> None:
    with pytest.raises(ValueError, match=r"write low|ends of a range"):
        written_space(text)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"low": 2, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "log needs low above 0"),
        ({"low": 1}, "both low and high"),
        ({"choices": [1], "low": 0, "high": 2}, "not both"),
        ({"hihg": 1, "low": 0}, "did you mean high"),
    ],
)
def test_spaces_are_checked_where_they_stand(written: dict[str, Any], said: str, tmp_path: Path) -> None:
    recipe = raw(tmp_path, sweep={"parameters": {"train.weight_decay": written}})
    with pytest.raises(RecipeError, match=said) as found:
        check(recipe, source="r")
    assert "sweep.parameters.train.weight_decay" in str(found.value)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"train.lerning_rate": {"low": 1e-4, "high": 1.0}}, "did you mean learning_rate"),
        ({"train.learning_rate": {"low": -1.0, "high": 1.0}}, "greater than 0"),
        ({"strategy.r": {"choices": [4, "many"]}}, "whole number"),
    ],
)
def test_every_end_must_make_a_recipe(parameters: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        program(asked(raw(tmp_path, sweep={"parameters": parameters})))


def test_no_choice_without_validation_rows_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = raw(tmp_path)
    del written["data"]["validation"]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match="never by test rows"):
        program(asked(written))
    with pytest.raises(RecipeError, match=r"needs data\.validation"):
        check({**written, "evaluate": {"split": "validation"}}, source="r")
    made = raw(tmp_path, evaluate={"target": ["accuracy"]})
    made["sweep"]["metric"] = "nll"
    with pytest.raises(UsageError, match="nll: not measured"):
        program(asked(made))
    assert sorted(tmp_path.iterdir()) == before


def test_a_trial_is_judged_on_validation_rows_alone(tmp_path: Path) -> None:
    written = raw(tmp_path, evaluate={"against": ["features"], "target": ["accuracy"]}, seeds=[0, 1])
    made = asked(written).trial({"train.learning_rate": 0.5}, "trial-000", looks=True)
    assert made["evaluate"] == {"target": ["accuracy"], "split": "validation"}
    assert made["train"] == {"learning_rate": 0.5, "eval_steps": 1}
    assert not {"sweep", "seeds"} & set(made)


def test_draws_are_repeatable_and_begin_with_the_recipes_own(tmp_path: Path) -> None:
    spaces = {"train.learning_rate": RATES["train.learning_rate"]}
    own = own_settings(check(raw(tmp_path, train={"learning_rate": 0.02}), source="r"), spaces)
    assert own == {"train.learning_rate": 0.02}
    first = draw(SWEEP, RATES, [], higher_is_better=True, seed=0, fixed=own)
    assert first.parameters["train.learning_rate"] == 0.02
    before = [trial(n, 0.5 + n / 100) for n in range(7)]
    one, other = (draw(SWEEP, RATES, before, higher_is_better=True, seed=7) for _ in range(2))
    assert one.parameters == other.parameters
    assert 1e-4 <= rate_of(one) <= 1e-1


def test_tpe_learns_which_way_is_better() -> None:
    """After 20 trials that get better with the rate, the median draw is high; turned round, low."""
    medians = {}
    for higher in (True, False):
        before = []
        for n in range(20):
            rate = 10 ** (-4 + 3 * n / 19)
            before.append(trial(n, n / 20, parameters={"train.learning_rate": rate, "strategy.r": 4}))
        rates = sorted(
            rate_of(draw(SWEEP, RATES, before, higher_is_better=higher, seed=s)) for s in range(9)
        )
        medians[higher] = rates[4]
    assert medians[True] > 1e-2 > 1e-3 > medians[False]


def test_a_hopeless_trial_is_stopped_and_a_good_one_is_not() -> None:
    before = [trial(n, 0.5, losses=(1.0, 0.8, 0.6 + n / 100)) for n in range(6)]
    for losses, stopped in (((1.2, 1.1, 1.0), True), ((0.9, 0.7, 0.5), False), ((9.0,), False)):
        made = draw(SWEEP, RATES, before, higher_is_better=True, seed=0, fixed=before[0].parameters)
        assert [made.hopeless(losses[: n + 1]) for n in range(len(losses))][-1] is stopped
    unpruned = draw(SWEEP.model_copy(update={"prune": False}), RATES, before, higher_is_better=True, seed=0)
    assert not unpruned.hopeless((9.0, 9.0, 9.0))


def test_a_grid_has_every_combination() -> None:
    points = grid({"a": Space(choices=(1, 2)), "b": Space(choices=("x", "y"))})
    assert [tuple(point.values()) for point in points] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]
    with pytest.raises(ValueError, match="grid needs choices"):
        Sweep(parameters=RATES, sampler="grid")


def searched(*trials: Trial) -> Search:
    return Search(
        arm="tuned", metric="nll", higher_is_better=False, retention_metric="nll",
        parameters=("train.learning_rate", "strategy.r"), trials=trials, best=0,
    )  # fmt: skip


def test_the_front_by_hand() -> None:
    """(target nll, retention nll): 3 is beaten on both by 1, 4 is stopped, 5 equals 1 on one side."""
    points = [(2.4, 2.6), (2.5, 2.0), (2.9, 1.3), (2.6, 2.1), (2.0, 1.0), (2.5, 2.3)]
    made = [trial(n, t, retention=r) for n, (t, r) in enumerate(points)]
    made[4] = made[4].model_copy(update={"state": "pruned"})
    assert [t.number for t in front(searched(*made))] == [0, 1, 2]


def test_the_page_says_that_test_rows_were_not_read(tmp_path: Path) -> None:
    search = searched(trial(0, 2.4, retention=2.6, seconds=3.0), trial(1, 2.5, retention=2.0))
    page = document(SweepResult(name="x", fingerprint="f", searches=(search,)), SweepLayout(tmp_path))
    assert "test rows were not read" in page.opening.caution
    figure, _, table = page.sections[0].blocks
    assert isinstance(figure, Figure)
    assert isinstance(table, Table)
    assert "Numbers are trials: 0, 1." in figure.caption
    assert [row[0] for row in table.rows] == ["0", "1"]


def test_arms_take_their_own_settings_and_refuse_what_they_cannot(tmp_path: Path) -> None:
    evaluate = {"against": ["scratch"], "arm_settings": {"scratch": {"train.learning_rate": 0.25}}}
    recipe = check(raw(tmp_path, evaluate=evaluate), source="r")
    assert control(recipe, "scratch").train.learning_rate == 0.25
    assert control(recipe, "features").train.learning_rate == 3e-3
    evaluate["arm_settings"] = {"scratch": {"train.lerning_rate": 0.25}}
    with pytest.raises(RecipeError, match="did you mean learning_rate"):
        control(check(raw(tmp_path, evaluate=evaluate), source="r"), "scratch")
    with pytest.raises(RecipeError, match=r"features.*scratch"):
        check(raw(tmp_path, evaluate={"arm_settings": {"majority": {}}}), source="r")


def test_target_only_is_the_last_stage_alone(tmp_path: Path) -> None:
    full = {"kind": "full"}
    stages = [
        {"name": "first", "strategy": full, "train": {"max_steps": 3}},
        {"name": "last", "starts_from": "first", "carry": "merge", "strategy": full},
    ]
    written = raw(tmp_path, stages=stages, evaluate={"against": ["target_only"]})
    del written["strategy"]
    (stage,) = control(check(written, source="r"), "target_only").stages
    assert (stage.name, stage.starts_from, stage.carry) == ("last", None, "auto")
    with pytest.raises(RecipeError, match="the last of several stages"):
        check(raw(tmp_path, evaluate={"against": ["target_only"]}), source="r")


def test_source_only_is_not_searched_over_terms_that_it_has_not(tmp_path: Path) -> None:
    rows = {"path": str(tmp_path / "rows.csv"), "text": "text", "label": "label"}
    terms = {"choices": [{}, {"mcc": {"weight": 1}}]}
    written = raw(tmp_path, evaluate={"against": ["source_only"]})
    written["data"] = {**written["data"], "unlabelled": rows}
    rates = {"low": 1e-4, "high": 1e-2, "log": True}
    for parameters, wanted in (
        ({"train.objective": terms, "train.learning_rate": rates}, {"train.learning_rate"}),
        ({"train.objective": terms}, {"train.learning_rate"}),
    ):
        made = program(asked({**written, "sweep": {"parameters": parameters}}))
        assert made.arms == ("tuned", "source_only")
        assert set(made.search("source_only")[1]) == wanted
        assert "train.objective" in made.search("tuned")[1]
