"""What sentence embeddings know without training, on whole public test sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import minilm
from tests.integration.test_predictors import predictor, scores
from tlscale.evaluation.tasks.find import find
from tlscale.evaluation.tasks.prepare import Setting, prepare

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("task", "least"), [("banking77", 0.60), ("ag_news", 0.70)])
def test_all_rows_of_a_public_test_set_are_answered_as_well_as_is_known(
    task: str, least: float, data_root: Path
) -> None:
    by = predictor(minilm.folder(), "embedding")
    asked = prepare(find(task), Setting(folder=data_root))
    found = scores(by, asked).argmax(dim=-1).tolist()
    right = sum(at == item.document.answer for at, item in zip(found, asked.items, strict=True))
    print(f"{task}: {right / len(found):.2%} of {len(found):,}")
    assert right / len(found) >= least
