"""What trains on what: every cell of the page trains and verifies, or is refused, as the page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.distributed.compatibility import pairs, run
from tools.compatibility import RESULTS

# sharded and quantized at once is the most that a short run can show; the others are for a quiet machine
SHORT = ("nf4-fsdp2",)


@pytest.mark.parametrize(
    "pair",
    [pytest.param(pair, marks=() if pair in SHORT else pytest.mark.long) for pair in pairs()],
)
def test_the_page_says_what_is_true(pair: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    said = {
        row["trains"]: row["outcome"] for row in rows if f"{row['quantization']}-{row['backend']}" == pair
    }
    found = run(pair, tmp_path)
    print("\n".join(json.dumps(row) for row in found))
    assert {row["trains"]: row["outcome"] for row in found} == said
    assert all(row["tensors"] and row["reload"] is not None for row in found if row["outcome"] == "trains")
