"""The cluster that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.kit import Cluster, cluster, problem


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A running cluster of two nodes; skips with the reason where there can be none."""
    reason = problem()
    if reason:
        pytest.skip(reason)
    with cluster() as up:
        yield up
