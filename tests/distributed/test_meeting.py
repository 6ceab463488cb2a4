"""Machines that don't come together: which one is missing, and why, in bounded time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machines import Machines, machines, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

ROOT = Path(__file__).parents[2]
PORTS = iter(range(29600, 29700))
# for what never comes, and for what may be slow to come
SOON, LATE = 5, 120
LONGEST = 240


@dataclass(frozen=True)
class Started:
    """A machine on its way to a meeting."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def said(self) -> str:
        assert self.process.wait(LONGEST) == 0, self.log.read_text()
        return self.log.read_text()

    def problems(self) -> list[str]:
        found: list[str] = json.loads(self.said().splitlines()[-1])
        return found


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, ("n1", "n2")) as made:
        yield made


def go(
    made: Machines, rank: int, port: int, *, seconds: int = SOON, address: str = "n1", path: str = ""
) -> Started:
    name = made.names[rank]
    log = made.folder / f"{name}-{port}.log"
    argv = (
        sys.executable, "-W", "ignore", "-m", "tlscale.worker.meeting", "sum", "--machines", "2",
        "--rank", str(rank), "--address", address, "--port", str(port), "--seconds", str(seconds),
    )  # fmt: skip
    environment = {
        **os.environ, "GLOO_SOCKET_IFNAME": "eth0", "PYTHONPATH": f"{path}{os.pathsep}{ROOT}",
    }  # fmt: skip
    return Started(made.start(name, argv, log=log, env=environment), log, port)


def test_a_machine_says_why_it_cant_reach_the_first(two: Machines) -> None:
    """The name isn't known, the port is closed; and the first machine names the one that didn't come."""
    alone = go(two, 0, next(PORTS))
    unknown = go(two, 1, next(PORTS), address="head-node")
    closed = go(two, 1, next(PORTS))
    (said,) = unknown.problems()
    assert f"machine n2 can't reach the first machine at head-node:{unknown.port} within {SOON} s" in said
    assert "the name head-node is not known here" in said
    assert "give the first machine's IP address, or add its name to /etc/hosts" in said
    (said,) = closed.problems()
    assert f"machine n2 can't reach the first machine at n1:{closed.port} within {SOON} s" in said
    assert "that port is closed: the first machine has not started, it was told another port" in said
    assert alone.problems() == []
    assert "1 of 2 processes have not come" in alone.said()
    assert "machine 1 (machine_rank 1): rank 1. Here: n1." in alone.said()


def test_machines_meet_unless_their_packages_differ(two: Machines, tmp_path: Path) -> None:
    old = tmp_path / "old" / "peft-0.1.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1.0\n")
    port, other = next(PORTS), next(PORTS)
    well = [go(two, rank, port, seconds=LATE) for rank in (0, 1)]
    assert [one.problems() for one in well] == [[], []]
    differ = [
        go(two, rank, other, seconds=LATE, path=path) for rank, path in ((0, ""), (1, str(old.parent)))
    ]
    for one in differ:
        # whose package is the wrong one is for those to judge who know all machines
        assert one.problems() == []
        assert "machines have different packages: peft" in one.said()
        assert "0.1.0 on n2; install the same on all" in one.said()


def test_a_cut_cable_is_told(two: Machines) -> None:
    two.cut("n2")
    (said,) = go(two, 1, next(PORTS)).problems()
    assert "machine n2 can't reach the first machine at n1" in said
    assert "there is no answer" in said or "No route to host" in said
