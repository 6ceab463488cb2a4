"""All problems at once, each with its path, what was given, what is allowed and the nearest name."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tlscale.errors import RecipeError, UsageError
from tlscale.recipe.load import check, load_recipe
from tlscale.recipe.schema import recipe_schema
from tlscale.recipe.templates import JOBS, render


def good() -> dict[str, Any]:
    return {
        "version": 1,
        "name": "x",
        "model": {"model_name_or_path": "org/model", "task": "causal-lm"},
        "data": {"train": {"hub": "org/data", "text": "text"}},
        "strategy": {"kind": "peft", "method": "lora", "r": 8},
    }


def problems(changes: dict[str, Any], *overrides: str) -> dict[str, str]:
    raw = good()
    for path, value in changes.items():
        target = raw
        *parents, last = path.split(".")
        for key in parents:
            target = target.setdefault(key, {})
        target[last] = value
    with pytest.raises(RecipeError) as caught:
        check(raw, overrides, source="x.yaml")
    return {p.path: f"{p.given} | {p.message}" for p in caught.value.problems}


def test_a_good_recipe_is_frozen_with_defaults() -> None:
    recipe = check(good(), ["train.learning_rate=3e-4"], source="x.yaml")
    assert recipe.train.learning_rate == 3e-4
    assert recipe.data.overflow == "cut"
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "y"  # type: ignore[misc]


def test_all_problems_come_together_and_the_command_line_is_named() -> None:
    found = problems(
        {
            "strategy.target_moduls": "all-linear",
            "train.num_train_epochs": "three",
            "model.task": "causal_lm",
        },
        "train.lerning_rate=1e-3",
    )
    assert found == {
        "strategy.target_moduls": '"all-linear" | unknown key; did you mean target_modules?',
        "train.num_train_epochs": '"three" | must be a number',
        "model.task": '"causal_lm" | must be causal-lm, masked-lm, sequence-classification, '
        "image-classification, audio-classification or sentence-embedding; did you mean causal-lm?",
        "train.lerning_rate": "0.001 | unknown key; did you mean learning_rate? (command line)",
    }


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"strategy": {"kind": "pefd"}}, "strategy.kind", "did you mean peft?"),
        ({"strategy": {}}, "strategy.kind", "missing; allowed: adda, auto, contrastive, features"),
        ({"strategy": {"kind": "peft", "method": "lra"}}, "strategy", "did you mean lora?"),
        ({"strategy": {"kind": "peft", "method": "dora"}}, "strategy", "use_dora: true"),
        ({"strategy": {"kind": "peft"}}, "strategy", "method is missing"),
        ({"strategy.r": 8.5}, "strategy.r", "must be a whole number"),
        ({"strategy.r": True}, "strategy.r", "must be a whole number"),
        ({"strategy.bias": "some"}, "strategy.bias", "must be none, all or lora_only"),
        ({"train.learning_rate": 0}, "train.learning_rate", "greater than 0"),
        ({"train.learning_rate": float("nan")}, "train.learning_rate", "number"),
        ({"train.per_device_train_batch_size": "many"}, "train.per_device_train_batch_size", "or auto"),
        ({"train.early_stopping_patience": 2}, "train", "needs eval_steps"),
        ({"train.report_to": ["tensorbord"]}, "train.report_to.0", "did you mean tensorboard?"),
        ({"data.train": {"text": "t"}}, "data.train", "exactly one of path, hub and tasks"),
        ({"data.train": {"path": "no/such.csv"}}, "data.train.path", "no such folder 'no'"),
        ({"data.train": {"path": "REDME.md"}}, "data.train.path", "did you mean README.md?"),
        ({"data.train.span": [0.9, 0.1]}, "data.train", "start < end"),
        ({"data.overflow": "truncate"}, "data.overflow", "must be cut, drop or error"),
        ({"model.trust_remote_code": True}, "model", "full 40-digit commit"),
        ({"name": "../up"}, "name", "must match"),
        ({"version": 2}, "version", "must be 1"),
        ({"seeds": [1, "two"]}, "seeds.1", "must be a whole number"),
        ({"model": "gpt2"}, "model", "must be a mapping"),
        (
            {"stages": [{"name": "a", "strategy": {"kind": "full"}}]},
            "recipe",
            "exactly one of strategy and stages",
        ),
    ],
)
def test_each_fault_is_named_where_it_is(changes: dict[str, Any], path: str, said: str) -> None:
    found = problems(changes)
    assert path in found, found
    assert said in found[path]


def test_stages_are_checked_like_the_recipe() -> None:
    found = problems(
        {
            "strategy": None,
            "stages": [
                {"name": "a", "strategy": {"kind": "full"}, "train": {"lerning_rate": 1}},
                {"name": "a", "strategy": {"kind": "full"}, "starts_from": "b"},
                {"name": "c", "strategy": {"kind": "partial", "last_layers": 0}},
                {"name": "d", "strategy": {"kind": "full"}, "train": {"report_to": ["wandb"]}},
            ],
        }
    )
    assert "did you mean learning_rate?" in found["stages.0.train.lerning_rate"]
    assert "used before" in found["stages.1.name"]
    assert "allowed: a, base" in found["stages.1.starts_from"]
    assert "greater than 0" in found["stages.2.strategy.last_layers"]
    assert found["stages.3.train.report_to"].endswith("is of the whole run; set train.report_to")


def test_variables_expand_in_paths_only_and_never_secrets(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\nhello\n")
    raw = good()
    raw["data"] = {"train": {"path": "${DATA}/rows.csv", "text": "${DATA}"}}
    recipe = check(raw, source="x", environment={"DATA": str(tmp_path)})
    assert recipe.data.train is not None
    assert recipe.data.train.path == str(tmp_path / "rows.csv")
    assert recipe.data.train.text == "${DATA}"
    found = problems({"data.train": {"path": "${DATA}/x"}, "output_dir": "${HF_TOKEN}"})
    assert "DATA is not set" in found["data.train.path"]
    assert "looks like a secret" in found["output_dir"]


def test_a_run_to_beat_must_have_been_scored(tmp_path: Path) -> None:
    scored, empty = tmp_path / "runs" / "full", tmp_path / "runs" / "none"
    (scored / "seed-0").mkdir(parents=True)
    empty.mkdir()
    (scored / "seed-0" / "measurements.jsonl").touch()
    raw = good() | {"evaluate": {"against_runs": ["${RUNS}/full"]}}
    recipe = check(raw, source="x", environment={"RUNS": str(tmp_path / "runs")})
    assert recipe.evaluate.against_runs == (str(scored),)
    found = problems({"evaluate.against_runs": [str(empty), str(tmp_path / "runs" / "ful")]})
    assert "no run that was scored" in found["evaluate.against_runs.0"]
    assert "did you mean full?" in found["evaluate.against_runs.1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "not UTF-8"),
        (b"- a\n", "a recipe is a mapping"),
        (b"a: 1\na: 2\n", "written twice"),
        (b"", "a recipe is a mapping"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        load_recipe(path)


def test_a_missing_recipe_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "banking.yaml").write_text("")
    with pytest.raises(UsageError, match=r"did you mean banking\.yaml\?"):
        load_recipe(tmp_path / "bankin.yaml")


@pytest.mark.parametrize("job", sorted(JOBS))
def test_every_template_is_a_recipe_and_fits_the_schema(job: str, tmp_path: Path) -> None:
    from tlscale.recipe.parse import parse_yaml

    text = render(job)
    raw = parse_yaml(text)
    jsonschema.validate(raw, recipe_schema())
    for source in raw["data"].values():
        if isinstance(source, dict):
            place = tmp_path / source["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
            source["path"] = str(place)
    assert check(raw, source=job).name == job
    settings = text.partition("\nmodel:")[2].partition("\nstrategy:")[0].splitlines()
    assert all("#" in line for line in settings if ": " in line)


def test_the_schema_knows_strategies_and_refuses_typos() -> None:
    raw = good()
    jsonschema.validate(raw, recipe_schema())
    raw["strategy"]["target_moduls"] = "all-linear"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, recipe_schema())
