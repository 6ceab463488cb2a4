"""What goes into the store comes out, without being held in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlscale.data.store import Stored, write
from tlscale.data.types import Example

LANGUAGE = [
    Example(
        where="a.jsonl:1", text="h\u00e9 \ud800", reference="", tokens=[7, 70000], loss=[False, True],
        prompt_tokens=1,
    ),
    Example(where="a.jsonl:2", text="", reference="yes", tokens=[], loss=[]),
    Example(where="a.jsonl:3", text="x", reference="\U0001f600", tokens=[1, 2], loss=[False, True]),
]  # fmt: skip
LABELLED = [Example(where=f"b:{i}", text="t", reference="r", tokens=[i], label=i % 3) for i in range(5)]
PAIRS = [Example(where="c:1", tokens=[1, 2], pair=[3]), Example(where="c:2", tokens=[], pair=[4, 5])]


def fields(example: Example) -> dict[str, object]:
    return dict(vars(example))


@pytest.mark.parametrize(
    "examples", [LANGUAGE, LABELLED, PAIRS, []], ids=["language", "labelled", "pairs", "none"]
)
def test_the_store_gives_back_what_it_got(examples: list[Example], tmp_path: Path) -> None:
    write(tmp_path, (example for example in examples))
    stored = Stored(tmp_path)
    assert [fields(example) for example in stored] == [fields(example) for example in examples]
    assert len(stored) == len(examples)


def test_the_store_is_a_sequence(tmp_path: Path) -> None:
    write(tmp_path, LABELLED)
    stored = Stored(tmp_path)
    assert [example.where for example in stored[1::2]] == ["b:1", "b:3"]
    assert stored[-1].label == 1
    with pytest.raises(IndexError):
        stored[5]
