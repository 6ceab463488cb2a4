"""The dependency audit tells known vulnerabilities from what could not be looked up."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_known_and_what_is_not() -> None:
    described = runpy.run_path(str(ROOT / "tools" / "audit.py"))["described"]
    fine = {"name": "a", "version": "1", "vulns": []}
    skipped = {"name": "b", "skip_reason": "not found"}
    fault = {"id": "CVE-2026-1", "fix_versions": ["2.1"]}
    text, bad = described([fine, skipped])
    assert not bad
    assert text == "1 of 2 pinned packages looked up, 0 known vulnerabilities"
    text, bad = described([fine, {"name": "c", "version": "2.0", "vulns": [fault]}])
    assert bad
    assert "c 2.0: CVE-2026-1; fixed in 2.1" in text
    text, bad = described([skipped])
    assert not bad
    assert "can't be reached" in text
