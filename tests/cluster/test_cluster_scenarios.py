"""The short form of the campaign: the page for newcomers, a machine that is not fit, and a broken chain.

`make cluster` runs all scenarios and prints the table.
"""

from __future__ import annotations

import pytest

from tests.cluster.campaign import run
from tests.cluster.kit import problem
from tests.cluster.scenarios import SCENARIOS

SHORT = ("From laptop to cluster, the page", "a machine fails preflight", "a link of the chain fails")


@pytest.mark.skipif(problem() is not None, reason=str(problem()))
@pytest.mark.parametrize("name", SHORT)
def test_it_costs_what_is_promised(name: str) -> None:
    assert name in SCENARIOS
    outcome, _ = run(name)
    assert outcome.passed, outcome
