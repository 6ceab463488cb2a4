"""Averages of weights and mixing with the start are the same on one process and two, and under ZeRO-2."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed import kit
from tests.integration import tiny

pytestmark = pytest.mark.long

CASES: dict[str, dict[str, Any]] = {
    "ema": {"averaging": {"kind": "ema", "decay": 0.9}},
    "swa-zero2": {"averaging": {"kind": "swa", "start": 0.4, "every": 2}},
    "mixout": {"mixout": 0.3},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, kit.Outcome]]:
    root = tmp_path_factory.mktemp("regular")
    (root / "model").mkdir()
    model, rows = tiny.llama(root / "model"), tiny.sentences(root / "rows.jsonl", 40)
    found = []
    for processes in (1, 2):
        cases = []
        for name, train in CASES.items():
            hardware = {"processes": processes}
            if processes > 1 and name.endswith("zero2"):
                hardware["sharding"] = "zero2"
            more = {"max_steps": 7, "learning_rate": 3e-3, **train}
            cases.append(kit.recipe(name, model, rows, method="full", train=more, hardware=hardware))
        found.append(kit.run(cases, root / f"on-{processes}", processes=processes))
    return found


@pytest.mark.parametrize("name", CASES)
def test_one_process_equals_two(name: str, outcomes: list[dict[str, kit.Outcome]]) -> None:
    one, two = (found[name] for found in outcomes)
    assert not one.error, one.error
    assert not two.error, two.error
    assert kit.loss_difference(two, one) <= 2e-5
    assert kit.weight_difference(two, one) <= 2e-5
