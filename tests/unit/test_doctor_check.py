"""The doctor on good data, on data with one fault more, and by way of `tlscale check`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.doctor_cases import good, pairs, table, with_row
from tlscale.cli import main
from tlscale.recipe.load import check
from tlscale.sources.doctor import Finding, diagnose
from tlscale.sources.doctor.finding import places

ROOT = Path(__file__).parents[2]


def recipe(data: dict[str, Any], task: str = "sequence-classification") -> dict[str, Any]:
    return {
        "version": 1,
        "name": "checked",
        "model": {"model_name_or_path": "builtin:pico", "task": task},
        "data": data,
        "strategy": {"kind": "full"},
    }


def examined(data: dict[str, Any], task: str = "sequence-classification") -> tuple[Finding, ...]:
    return diagnose(check(recipe(data, task), source="checked"))


def names(found: tuple[Finding, ...]) -> set[tuple[str, str]]:
    return {(one.severity, one.check) for one in found}


def written(folder: Path, content: bytes, data: dict[str, Any] | None = None) -> str:
    """The path of a recipe whose training rows are `content`."""
    (folder / "t.csv").write_bytes(content)
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe({"train": {"path": str(folder / "t.csv")}, **(data or {})})))
    return str(path)


def test_good_rows_of_every_format_pass_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(table(good()))
    assert examined({"train": {"path": str(tmp_path / "t.csv")}}) == ()
    (tmp_path / "t.jsonl").write_bytes(pairs())
    assert examined({"train": {"path": str(tmp_path / "t.jsonl")}}, "causal-lm") == ()


def test_every_shipped_recipe_on_builtin_data_passes_without_a_word() -> None:
    raw = check(recipe({"train": {"path": "builtin:code-train.jsonl"}}, "causal-lm"), source="quick")
    assert diagnose(raw) == ()


ALPACA = {"prompt": "{instruction}\n{input}\n", "completion": "output"}
DOLLY = {"text": "text", "split_at": "### Assistant:"}
PIXELS = {"image": "x_test.npz/arr_0", "label": "y_test.npz/arr_0"}


@pytest.mark.parametrize(
    ("path", "columns", "task", "expected"),
    [
        ("chat_demos/alpaca_en_demo.json", ALPACA, "causal-lm", {"duplicate", "overlap"}),
        ("chat_demos/kto_en_demo.json", {}, "causal-lm", {"mojibake"}),
        ("dolly_openqa/chinkara-open_qa.jsonl", DOLLY, "causal-lm", {"duplicate", "overlap"}),
        ("tinyshakespeare/input.txt", {"text": "text", "document": "file"}, "causal-lm", set()),
        ("fashion_mnist_2k", PIXELS, "image-classification", set()),
    ],
)
def test_known_good_sets_have_only_what_is_really_in_them(
    data_root: Path, path: str, columns: dict[str, str], task: str, expected: set[str]
) -> None:
    found = examined({"train": {"path": str(data_root / path), **columns}}, task)
    assert {one.check for one in found} == expected
    assert not [one for one in found if one.severity == "error"]


def test_the_real_intents_have_seven_test_questions_in_train(data_root: Path) -> None:
    columns = {"text": "text", "label": "category"}
    found = examined(
        {role: {"path": str(data_root / f"banking77/{role}.csv"), **columns} for role in ("train", "test")}
    )
    assert names(found) == {("warning", "overlap"), ("note", "duplicate")}
    assert "7 of 3,080 test rows" in found[0].message


def test_a_fault_of_a_file_is_said_once_although_rows_are_held_out(tmp_path: Path) -> None:
    rows = [("", "class0") if i % 4 == 0 else row for i, row in enumerate(good())]
    (tmp_path / "t.csv").write_bytes(table(rows))
    found = [f for f in examined({"train": {"path": str(tmp_path / "t.csv")}}) if f.check == "empty"]
    assert [(f.role, f.where) for f in found] == [("train", "t.csv:2")]
    assert "10 of 40 rows (t.csv:2, :6, :10 and 7 more)" in found[0].message


def test_stages_with_their_own_rows_are_examined(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(pairs())
    (tmp_path / "u.jsonl").write_bytes(pairs(completion=""))
    raw = recipe({"train": {"path": str(tmp_path / "t.jsonl")}}, "causal-lm")
    stage = {"name": "first", "strategy": raw.pop("strategy"), "data": {"path": str(tmp_path / "u.jsonl")}}
    found = diagnose(check({**raw, "stages": [stage]}, source="stages"))
    errors = [(f.role, f.where, f.check) for f in found if f.severity == "error"]
    assert errors == [("first", "u.jsonl:16", "empty")]


def test_hub_sources_are_left_alone_and_that_is_said() -> None:
    found = examined({"train": {"hub": "org/rows", "text": "text"}}, "causal-lm")
    assert names(found) == {("note", "not-read")}


def test_places_name_the_file_once() -> None:
    assert places(["a.csv:1", "a.csv:3", "b.csv:4", "b.csv:5"]) == "a.csv:1, :3, b.csv:4 and 1 more"
    assert places(["a.npz[1]", "a.npz[2]"]) == "a.npz[1], a.npz[2]"


def test_check_exits_2_on_errors_in_the_data_and_0_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = written(tmp_path, with_row("", "class1"))
    assert main(["check", bad]) == 2
    said = capsys.readouterr().out
    assert "error" in said
    assert "t.csv:17" in said
    assert "Nothing was run." in said
    assert main(["check", bad, "--no-data"]) == 0
    assert "no problems found" in capsys.readouterr().out
    assert main(["check", bad, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["problems"]) == (False, [])
    assert told["findings"][0] == {
        "severity": "error",
        "role": "train",
        "where": "t.csv:17",
        "check": "empty",
        "message": "column 'text' is empty: 1 of 40 rows (t.csv:17); fill them in or drop these rows",
    }


def test_warnings_are_said_and_do_not_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, table(good() + good()[:5]))
    assert main(["check", path]) == 0
    said = capsys.readouterr().out
    assert "warning  train      the same as an earlier row" in said
    assert "the data: " in said
    assert "\x1b" not in said


def test_no_examples_are_made_while_the_data_has_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", written(tmp_path, with_row("", "class1")), "--examples", "2"]) == 2
    assert "No examples are rendered" in capsys.readouterr().out


def test_a_check_of_csv_rows_loads_nothing_heavy(tmp_path: Path) -> None:
    path = written(tmp_path, table(good() + good()[:5]))
    program = (
        "import sys; from tlscale.cli import main; code = main(['check', sys.argv[1]])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow', 'datasets', 'PIL'} & set(sys.modules)\n"
        "print(heavy or 'light'); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "light"
