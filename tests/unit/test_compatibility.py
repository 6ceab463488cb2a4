"""The page of what trains on what is the one that its stored results give."""

from __future__ import annotations

import json
from pathlib import Path

from tools.compatibility import PAGE, RESULTS, page

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_results() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    assert PAGE.read_text(encoding="utf-8") == page(rows)
    assert rows
