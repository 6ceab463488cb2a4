"""The short form of the fault campaign: one or two trials of each kind; `make faults` runs them all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign import everything, warm_up
from tests.faults.kit import Bench, bench

ALL = {trial.name: trial for found in everything().values() for trial in found}
ON_MOUNTS = ("full at the first save",)
SHORT = (
    *("kill:1", "kill:2", "kill:3", "kill:10", "signal:3", "signal:17", "signal:30"),
    *("launcher:5", "hang:3", "hang:5", "exact:5", "exact:60", "world:1", "world:2"),
)


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    warm_up()
    with bench(tmp_path_factory.mktemp("faults") / "bench") as made:
        yield made


@pytest.mark.parametrize("name", SHORT)
def test_trial(name: str, on: Bench, tmp_path: Path) -> None:
    assert ALL[name].run(on, tmp_path / "trial").wrong == ""


@pytest.mark.parametrize("name", [t.name for t in everything()["disk"] if t.case in ON_MOUNTS])
def test_disk(name: str, on: Bench, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    assert ALL[name].run(on, tmp_path / "trial").wrong == ""


def test_the_campaign_has_its_size() -> None:
    assert {kind: len(found) for kind, found in everything().items()} == {
        "kill": 200, "signal": 30, "launcher": 30, "hang": 6, "disk": 15, "exact": 64, "world": 6,
    }  # fmt: skip
