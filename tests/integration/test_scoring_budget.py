"""The budget of a pass is searched once, where that pays, and kept."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from tests.integration.scoring_kit import model, tokenizer
from tlscale.evaluation.requests import Rolling
from tlscale.evaluation.scoring import budget
from tlscale.evaluation.scoring.scorer import ModelScorer, Share

SIZES = (1, 2, 4, 8, 16)


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ((8, 4, 2, 1, 0.5), 16),
        ((8, 4, 2, 3, 0.1), 4),
        ((8, 7.9, 1, 1, 1), 1),
        ((8, 9, 1, 1, 1), 1),
    ],
    ids=["ever quicker", "a top", "flat", "slower"],
)
def test_doubling_ends_where_a_token_gets_no_quicker(rates: tuple[float, ...], found: int) -> None:
    table = dict(zip(SIZES, rates, strict=True))
    assert budget.search(lambda size: table[size] * size, SIZES) == found


def test_memory_ends_the_search_and_other_errors_are_told() -> None:
    def seconds(size: int) -> float:
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    def broken(size: int) -> float:
        raise RuntimeError("a bug")

    assert budget.search(seconds, SIZES) == 4
    with pytest.raises(RuntimeError, match="a bug"):
        budget.search(broken, SIZES)


def test_a_large_evaluation_looks_for_its_budget_once_and_goes_on_with_it(tmp_path: Path) -> None:
    letters = random.Random(0)
    device = torch.device("cpu")
    asked = [Rolling("long", "".join(letters.choices("cdfghjk", k=240_000)))]
    assert budget.worth(240_000, device)
    assert not budget.worth(100_000, device)
    notes: list[str] = []
    scorer = ModelScorer(model("llama"), tokenizer(), journal=tmp_path, note=notes.append)
    ((_, found),) = scorer.score(asked)
    assert [note.endswith("tokens a pass are the quickest here") for note in notes] == [True]
    (kept,) = tmp_path.glob("budget-*.jsonl")
    (log,) = set(tmp_path.glob("*.jsonl")) - {kept}
    passes = log.read_text()
    # one that goes on, and another process of it, take the budget that was found: every pass is known
    told = iter([[json.loads(kept.read_text())["budget"]], []])
    for share in (None, Share(1, 2, lambda rows: next(told))):
        again = ModelScorer(model("llama"), tokenizer(), journal=tmp_path, share=share, note=notes.append)
        assert list(again.score(asked)) == [(0, found)]
    assert len(notes) == 1
    assert log.read_text() == passes
    assert len(list(tmp_path.iterdir())) == 2
    assert next(told, None) is None
