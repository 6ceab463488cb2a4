"""A push that is killed anywhere is finished by the same command, and nobody sees half of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.hub.conftest import Site
from tests.hub.server import Fault
from tlscale.publish import digests
from tlscale.runs.record import read_lines

HOLD = 15.0


def killed_at(site: Site, name: str, fault: Fault, notes: Path) -> None:
    """Starts a push that waits for an answer of the Hub, and kills it there."""
    env = {**site.env, "WARM_NOTES": str(notes)}
    command = [site.python, "-m", "tlscale", "push", "runs/colours", "--to", name]
    site.hub.faults.append(fault)
    with subprocess.Popen(command, env=env, cwd=site.root, stdout=subprocess.DEVNULL) as push:
        while fault.seen < fault.first:
            assert push.poll() is None, "the push ended before it got there"
            time.sleep(0.02)
        # a late answer's deed is done by then
        time.sleep(0.5)
        (number,) = (
            int(line.split()[1]) for line in notes.read_text().splitlines() if "worker" not in line
        )
        os.kill(number, signal.SIGKILL)
        assert push.wait() != 0
    site.hub.faults.remove(fault)


@pytest.mark.parametrize(
    ("endpoint", "kind", "first", "commits"),
    [
        ("preupload", "slow", 1, 1),
        ("commit", "late", 1, 1),
        ("resolve", "slow", 3, 1),
        ("commit", "slow", 2, 1),
        ("commit", "late", 2, 2),
        ("delete", "slow", 1, 2),
    ],
)
def test_a_killed_push_goes_on(
    site: Site, tmp_path: Path, endpoint: str, kind: str, first: int, commits: int
) -> None:
    name = f"ada/killed-{endpoint}-{kind}-{first}"
    killed_at(site, name, Fault(endpoint, kind, first=first, seconds=HOLD), tmp_path / "notes")
    repository = site.hub.store.repositories[name]
    assert len(site.hub.store.log(name)) == commits, "main shows nothing or everything"
    said = site.tlscale("push", "runs/colours", "--to", name).stdout
    assert ("nothing to do" in said) == (commits == 2)
    assert len(site.hub.store.log(name)) == 2
    assert repository.branches.keys() == {"main"}
    head = repository.commit_at("main")
    assert head is not None
    assert head.files.keys() - digests.THEIRS == {path.name for path in site.published.iterdir()}
    filed = [row for row in read_lines(site.run / "published.jsonl") if row["repository"] == name]
    assert [row["commit"] for row in filed] == [head.oid], "what was published is on record, once"
