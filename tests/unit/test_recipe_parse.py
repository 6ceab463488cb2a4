"""YAML without surprises, and overrides."""

import pytest
import yaml

from tlscale.recipe.parse import apply_overrides, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("12", 12),
        ("yes", "yes"),
        ("off", "off"),
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:00", "12:30:00"),
        ("0o17", "0o17"),
        ("true", True),
        ("null", None),
        ("", None),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "'a' is written twice, again on line 3"),
        ("a: &x [1]\nb: *x", "anchors and aliases"),
        ("1: a", "is no text"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper"),
        ("a: " + "x" * 1_000_001, "larger than"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: [1", "expected"),
    ],
)
def test_what_no_recipe_needs_is_refused(text: str, said: str) -> None:
    with pytest.raises(yaml.YAMLError, match=said):
        parse_yaml(text)


def test_overrides_reach_into_mappings_and_lists_and_leave_the_original() -> None:
    raw = {"train": {"learning_rate": 1.0}, "stages": [{"name": "a"}]}
    merged, problems = apply_overrides(
        raw, ["train.learning_rate=3e-4", "stages.0.name=b", "data.train.path=x", "name=null"]
    )
    assert problems == []
    assert merged == {
        "train": {"learning_rate": 3e-4},
        "stages": [{"name": "b"}],
        "data": {"train": {"path": "x"}},
        "name": None,
    }
    assert raw == {"train": {"learning_rate": 1.0}, "stages": [{"name": "a"}]}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("nonsense", "not an override"),
        (".a=1", "not an override"),
        ("train.learning_rate.x=1", "is a value, it has no keys"),
        ("stages.7.name=x", "is a list of 1"),
        ("a=[1", "not a YAML value"),
    ],
)
def test_overrides_that_cannot_be_meant_are_problems(argument: str, said: str) -> None:
    _, problems = apply_overrides({"train": {"learning_rate": 1.0}, "stages": [{}]}, [argument])
    assert len(problems) == 1
    assert said in problems[0].message
