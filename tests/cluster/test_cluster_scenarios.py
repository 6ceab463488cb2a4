"""The short form of the campaign: a save and a return, a machine that is not fit, and a broken chain.

`make cluster` runs all scenarios and prints the table.
"""

from __future__ import annotations

import pytest

from tests.cluster.campaign import row, run, table
from tests.cluster.kit import problem
from tests.cluster.scenarios import SCENARIOS

SHORT = ("USR1, requeue, resume", "a machine fails preflight", "a link of the chain fails")
LONG = (
    "From laptop to cluster, the page",
    "each way to be unfit",
    "train, score, judge, push",
    "the gate closes before the push",
    "array of a sweep",
    "array of seeds",
    "launch/one-machine.sbatch",
    "launch/several-machines.sbatch",
)


@pytest.mark.skipif(problem() is not None, reason=str(problem()))
@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_it_costs_what_is_promised(name: str) -> None:
    assert name in SCENARIOS
    outcome, _ = run(name)
    print(table([row(name, outcome)]))
    assert outcome.passed, outcome
