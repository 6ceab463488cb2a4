"""Bad rows are refused by name, before anything is scored; every built-in task reads its real data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tlscale import plugins
from tlscale.errors import DataError, RecipeError, TlscaleError, UsageError
from tlscale.evaluation.requests import Choices, Generation, Likelihood, Rolling
from tlscale.evaluation.tasks.find import expanded, find
from tlscale.evaluation.tasks.prepare import Setting, prepare
from tlscale.evaluation.tasks.rows import read_documents
from tlscale.evaluation.tasks.task import Document, Rows, Task

ROWS = [{"q": f"question {at}", "c": ["yes", "no"], "a": at % 2} for at in range(4)]


def ask(row: Any) -> Document:
    choices, name = tuple(row["c"]), row.get("i", "")
    return Document(query=row["q"], choices=choices, answer=row["a"], text=row["q"], id=name)


def task(**changes: Any) -> Task:
    place = Rows(path="rows.jsonl")
    made = Task("quiz", "", "choice", test=(place,), document=ask, metrics=("acc",))
    return replace(made, **changes)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Any]], Path]:
    def of(rows: list[Any]) -> Path:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    return of


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an answer out of range": (
        {"a": 2}, {}, r"rows\.jsonl:3: the right answer is 2, out of range: there are 2 choices, numbered",
    ),
    "an empty choice": ({"c": ["yes", " "]}, {}, r"rows\.jsonl:3: choice 1 is empty"),
    "no choice at all": ({"c": []}, {}, r"rows\.jsonl:3: choice 0 is empty"),
    "an answer that is no index": ({"a": "yes"}, {}, r"the right answer is 'yes', out of range"),
    "an id twice": ({"i": "0"}, {}, r"ids are there twice.*'0' at rows\.jsonl:1 and rows\.jsonl:3"),
    "an unknown label": (
        {"a": "nno"},
        {"kind": "classification", "labels": ("yes", "no"),
         "document": lambda row: Document(text=row["q"], answer=row["a"] if row["a"] == "nno" else "yes")},
        r"rows\.jsonl:3: label 'nno': unknown label; did you mean no\?",
    ),
    "an empty text": (
        {"q": ""}, {"kind": "rolling", "document": lambda row: Document(text=row["q"])}, "text is empty",
    ),
    "a generation without an answer": (
        {"a": " "},
        {"kind": "generation", "document": lambda row: Document(query=row["q"], answer=str(row["a"]))},
        "generation needs a text as the right answer, not ' '",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_bad_rows_are_named(case: str, write: Callable[[list[Any]], Path]) -> None:
    change, changes, said = BAD[case]
    folder = write([*ROWS[:2], {**ROWS[2], **change}, *ROWS[3:]])
    with pytest.raises(DataError, match=said) as refused:
        read_documents(task(**changes), folder, with_train=False)
    assert "task quiz" in str(refused.value)


def test_a_missing_column_names_the_nearest(write: Callable[[list[Any]], Path]) -> None:
    folder = write([{"qq": "x", "c": ["a", "b"], "a": 0}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: q: unknown column; (did you mean qq|allowed)"):
        read_documents(task(), folder, with_train=False)


def test_code_that_fails_is_told_from_a_bad_file(write: Callable[[list[Any]], Path]) -> None:
    def fails(row: Any) -> Document:
        raise ZeroDivisionError("oh")

    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: the task's own code failed: ZeroDivisionError: oh"
    ):
        read_documents(task(document=fails), write(ROWS), with_train=False)
    bad = Rows(path="rows.jsonl", reader=lambda path: (_ for _ in ()).throw(OSError("broken")))
    with pytest.raises(DataError, match=r"can't be read: OSError: broken"):
        read_documents(task(test=(bad,)), write(ROWS), with_train=False)


def test_rows_that_are_nowhere_say_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere to be found: .*rows\.jsonl; set evaluate\.data_dir"):
        read_documents(task(), tmp_path, with_train=False)
    with pytest.raises(DataError, match=r"below evaluate\.data_dir, which is not set"):
        read_documents(task(), None, with_train=False)


def test_rows_that_serve_as_examples_are_not_scored(write: Callable[[list[Any]], Path]) -> None:
    shared = task(train=(Rows(path="rows.jsonl", span=(0.0, 0.5)),))
    folder = write(ROWS)
    assert prepare(shared, Setting(folder=folder)).scored == 4
    few = prepare(shared, Setting(shots=1, folder=folder))
    assert [item.document.where for item in few.items] == ["rows.jsonl:3", "rows.jsonl:4"]
    assert few.notes == ("quiz: 2 rows of the test serve as examples and are not scored",)
    assert few.name == "quiz-1shot"


def test_who_learns_gets_so_many_rows_of_each_answer(write: Callable[[list[Any]], Path]) -> None:
    folder = write([{"q": f"q{at}", "c": ["yes", "no"], "a": at % 2} for at in range(20)])
    learned = task(train=(Rows(path="rows.jsonl", span=(0.0, 0.5)),))
    few = prepare(learned, Setting(shots=3, folder=folder), needs_train=True)
    assert [document.answer for document in few.train].count(0) == 3
    assert [document.answer for document in few.train].count(1) == 3
    assert all(not item.shots for item in few.items)
    assert few.train == prepare(learned, Setting(shots=3, folder=folder), needs_train=True).train
    assert len(prepare(learned, Setting(folder=folder), needs_train=True).train) == 10


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"shots": 1}, "only 0 shots are possible"),
        ({"calibrations": ("contextual",)}, "contextual calibration needs the task's prompt"),
        ({"calibrations": ("pmi",)}, "pmi needs the end of the prompt alone"),
        ({"calibrations": ("batch",)}, "needs the same choices for all items"),
        ({"calibrations": ("temperature",)}, "no rows to take examples from"),
    ],
)
def test_settings_that_the_task_can_not_have(
    setting: dict[str, Any], said: str, write: Callable[[list[Any]], Path]
) -> None:
    with pytest.raises(UsageError, match=said):
        prepare(task(), Setting(folder=write(ROWS), **setting))


def test_unknown_names_suggest_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean hellaswag"):
        find("helaswag")
    with pytest.raises(UsageError, match="no such file"):
        find(str(tmp_path / "mine.yaml"))
    assert expanded(("arc_*", "piqa", "arc_easy")) == ("arc_challenge", "arc_easy", "piqa")


def test_a_written_task_says_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("task: T\nkind: choise\ntest: {path: x.csv}\npromt: x\n")
    with pytest.raises(RecipeError) as refused:
        find(str(path))
    assert {(p.path, "did you mean" in p.message) for p in refused.value.problems} >= {
        ("kind", True), ("promt", True), ("task", False),
    }  # fmt: skip


def test_letters_numbers_and_texts_answer_a_written_choice(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("q,a,b,right\none,yes,no,B\ntwo,yes,no,0\nthree,yes,no,no\n")
    path = tmp_path / "t.yaml"
    path.write_text(
        "task: t\nkind: choice\ntest: {path: q.csv}\nprompt: '{q}?'\nanswer: right\n"
        "choices: ['{a}', '{b}']\n"
    )
    found = read_documents(find(str(path)), None, with_train=False).test
    assert [(d.query, d.choices, d.answer) for d in found] == [
        ("one?", ("yes", "no"), 1), ("two?", ("yes", "no"), 0), ("three?", ("yes", "no"), 1),
    ]  # fmt: skip


@pytest.mark.parametrize("name", plugins.names("tlscale.tasks"))
def test_every_built_in_task_reads_its_real_data(name: str, data_root: Path) -> None:
    found = find(name)
    shots = 1 if found.train else 0
    made = prepare(found, Setting(shots=shots, max_rows=5, folder=data_root))
    assert made.scored == 5
    assert found.name == name
    for item in made.items:
        assert item.requests
        for request in item.requests:
            if isinstance(request, Choices):
                assert len(request.options) >= 2
                assert not request.context.endswith(" ")
            elif isinstance(request, Rolling):
                assert request.text.strip()
            else:
                assert isinstance(request, (Likelihood, Generation))
                assert request.context.strip()
        assert len(item.shots) == shots


def test_a_broken_plugin_fails_only_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wrong.py").write_text("TASK = 3\n")
    about = tmp_path / "wrong-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tlscale.tasks]\nwrong = wrong:TASK\ngone = nowhere:TASK\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins._targets.cache_clear()
    try:
        with pytest.raises(TlscaleError, match=r"wrong of group tlscale\.tasks is a int, not a Task"):
            find("wrong")
        with pytest.raises(TlscaleError, match="can't be loaded: ModuleNotFoundError"):
            find("gone")
        assert find("copa").kind == "choice"
    finally:
        plugins._targets.cache_clear()
