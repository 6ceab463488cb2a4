"""The fault campaign's cases for CI; `make faults` runs all of them."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.hub.conftest import Site
from tests.hub.kit import ROOT


def test_no_fault_leaves_half_a_publication_or_two(site: Site) -> None:
    command = [sys.executable, "-m", "tests.hub.faults", "--some", "--publication"]
    done = subprocess.run(
        [*command, str(site.published)],
        env=site.env, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    print(done.stdout)
    found = re.search(r"(\d+) cases, (\d+) good; partial publications 0, duplicate commits 0", done.stdout)
    assert found is not None
    assert int(found[1]) == int(found[2]) >= 28
