"""Looks every pinned dependency up in the public advisories, and says how many could be looked up.

python tools/audit.py     exits 1 when a pinned version has a known vulnerability

Where the advisories can't be reached, that is said and is no failure: a machine without a network can still
run every other check.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PINNED = Path(__file__).parents[1] / "constraints.txt"
COMMAND = (
    sys.executable, "-m", "pip_audit", "-r", str(PINNED), "--no-deps", "--disable-pip", "--format", "json",
    "--progress-spinner", "off", "--timeout", "15",
)  # fmt: skip


def described(found: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """The result in words, and whether a known vulnerability is among the pinned versions."""
    looked = [one for one in found if "skip_reason" not in one]
    bad = [(one["name"], one["version"], fault) for one in looked for fault in one["vulns"]]
    lines = [
        f"{name} {version}: {fault['id']}; fixed in {', '.join(fault['fix_versions']) or 'no version yet'}"
        for name, version, fault in bad
    ]
    sums = f"{len(looked)} of {len(found)} pinned packages looked up, {len(bad)} known vulnerabilities"
    if not looked:
        sums += "; the advisories can't be reached from here, so nothing is known"
    return "\n".join([*lines, sums]), bool(bad)


def main() -> int:
    """Runs pip-audit; exit code 1 for a known vulnerability alone."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        print(f"not audited: {lines[-1].strip()}")
        return 0
    text, bad = described(found)
    print(text)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
