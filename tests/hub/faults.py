"""What a push does when the Hub fails: every endpoint that it uses, times all that can go wrong there.

`python -m tests.hub.faults` runs all cases and prints the table; `--some` runs those of CI. Each case has a
server and a repository of its own, and a real adapter is verified with a real model before it is promoted.
A case is good when the push ended published, or in an error after which the same push, without the
fault, ends published; when the main branch never showed anything else than nothing or everything; and when
it has no commit twice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging as transformers_logging

from tests.hub import kit
from tests.hub.server import Fault, serving
from tests.hub.server import Hub as Server
from tlscale.errors import TlscaleError, VerificationError
from tlscale.publish import digests, intake, scratch
from tlscale.publish.hub import Hub
from tlscale.publish.push import Published, Target, push
from tlscale.publish.retry import Patience

REPOSITORY = "ada/colours"
TITLE = "colours: adapter"
USED = (
    "whoami", "info", "tree", "create", "branch", "validate", "preupload", "batch", "put", "lfs-verify",
    "commit", "resolve-head", "resolve", "delete",
)  # fmt: skip
ANYWHERE = ("429", "503", "drop", "answer lost", "truncated", "slow")
HASHED = ("preupload", "put", "tree", "resolve")
# The client answers HEAD without a body, and takes the answers to a PUT and a DELETE as they are.
BODILESS = ("resolve-head", "put", "delete")
LASTING = 100
SOME_EVERY = 3
# Where the client itself tries for more than a minute before it gives up.
PATIENT = ("put", "resolve", "tree")


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong: where, what, at which call and how often."""

    endpoint: str
    kind: str
    first: int = 1
    times: int = 1

    def __str__(self) -> str:
        when = "for good" if self.times == LASTING else f"at call {self.first}"
        return f"{self.endpoint}: {self.kind} {when}"


@dataclass(frozen=True)
class Ended:
    """How a case went; `problems` is empty for a good one."""

    case: Case
    first: str
    again: str
    commits: int
    problems: tuple[str, ...]


def cases() -> tuple[Case, ...]:
    """Every endpoint with everything that can happen at it, passing and lasting."""
    made = [
        Case(endpoint, kind)
        for endpoint in USED
        for kind in ANYWHERE
        if not (kind == "truncated" and endpoint in BODILESS)
    ]
    made += [Case(endpoint, "wrong hash") for endpoint in HASHED]
    # the commit to the branch is the first, the promotion the second
    made += [Case("commit", kind, first=2) for kind in ANYWHERE]
    made += [Case("commit", "stale parent", first=first) for first in (1, 2)]
    made += [Case("tree", kind, first=first) for kind in ("drop", "truncated") for first in (3, 5)]
    lasting = [("commit", "503"), ("put", "500"), ("resolve", "drop"), ("tree", "429"), ("branch", "503")]
    lasting += [("commit", "stale parent"), ("resolve", "wrong hash"), ("create", "403"), ("delete", "503")]
    lasting += [("whoami", "503")]
    made += [Case(endpoint, kind, times=LASTING) for endpoint, kind in lasting]
    return tuple(made)


class Judge:
    """Loads the Hub's copy onto its base, one at a time, as the worker does."""

    def __init__(self) -> None:
        transformers_logging.disable_progress_bar()
        self._lock = threading.Lock()

    def __call__(self, copy: Path) -> None:
        from tlscale.models.published import examine

        with self._lock, tempfile.TemporaryDirectory() as made:
            looked = intake.known_files(copy, Path(made) / "copy")
            intake.check(looked)
            plan = scratch.plan_for(looked)
            found = examine(looked, model=plan.recipe.model, facts=plan.facts, world=plan.world)
            if found.problems or found.max_difference != 0.0:
                raise VerificationError(f"{found}")


def run(case: Case, folder: Path, judge: Callable[[Path], None]) -> Ended:
    """One push under `case`, and, where it ended in an error, the same push again."""
    with tempfile.TemporaryDirectory() as made, serving(Path(made)) as server:
        server.faults.append(Fault(case.endpoint, case.kind, case.times, case.first))
        first, result = _attempt(server, folder, judge)
        problems = [] if result or "again" in first or "give" in first else [f"no way on: {first}"]
        problems += _shown(server, folder)
        again = ""
        if result is None:
            server.faults.clear()
            again, result = _attempt(server, folder, judge)
            problems += [] if result else [f"not published in the end: {again}"]
        problems += _shown(server, folder)
        later, last = _attempt(server, folder, judge)
        if last is None or last.changed:
            problems.append(f"pushing once more was not nothing: {later}")
        titles = server.store.log(REPOSITORY) if REPOSITORY in server.store.repositories else []
        commits = titles.count(TITLE)
        problems += [] if commits == 1 else [f"{commits} commits"]
        return Ended(case, first, again, commits, tuple(problems))


def _attempt(server: Server, folder: Path, judge: Callable[[Path], None]) -> tuple[str, Published | None]:
    hub = Hub(endpoint=server.address, token="hf_write", patience=Patience(tries=3, pause=0.05))
    try:
        hub.account()
        made = push(folder, Target(REPOSITORY, True, TITLE), hub, judge, lambda _: None)
    except TlscaleError as error:
        return str(error), None
    return "published", made


def _shown(server: Server, folder: Path) -> list[str]:
    """What a reader of the main branch may not see: a part of the files."""
    repository = server.store.repositories.get(REPOSITORY)
    head = None if repository is None else repository.commit_at("main")
    files = {} if head is None else {n: f for n, f in head.files.items() if n not in digests.THEIRS}
    if not files:
        return []
    wanted = digests.digests(folder)
    whole = files.keys() == wanted.keys() and all(
        (f.lfs or f.oid) == (wanted[n].sha256 if f.lfs else wanted[n].oid) for n, f in files.items()
    )
    return [] if whole else ["a partial publication was to be seen"]


def with_publication(arguments: list[str]) -> int:
    """Assembles a publication as `tlscale push` does, and runs the campaign where its base is known."""
    with tempfile.TemporaryDirectory() as made, serving(Path(made) / "hub") as hub:
        root = Path(made)
        kit.with_base(hub, root / "base")
        env = kit.environment(hub, root / "home")
        kit.tlscale("run", str(kit.recipe(root)), env=env, cwd=root)
        kit.tlscale("push", "runs/colours", "--to", REPOSITORY, env=env, cwd=root)
        folder = root / "runs" / "colours" / "publication"
        command = [sys.executable, "-m", "tests.hub.faults", *arguments, "--publication", str(folder)]
        return subprocess.run(command, env=env, check=False).returncode


def table(ended: list[Ended]) -> str:
    """One row for each endpoint, and the sums that matter."""
    lines = [f"{'endpoint':<14} {'cases':>5} {'published':>10} {'clear error':>12} {'then published':>15}"]
    for endpoint in USED:
        rows = [one for one in ended if one.case.endpoint == endpoint]
        at_once = sum(one.first == "published" for one in rows)
        then = sum(one.again == "published" for one in rows)
        lines.append(f"{endpoint:<14} {len(rows):>5} {at_once:>10} {len(rows) - at_once:>12} {then:>15}")
    counted = Counter(problem.partition(":")[0] for one in ended for problem in one.problems)
    partial = counted["a partial publication was to be seen"]
    twice = sum(one.commits > 1 for one in ended)
    good = sum(not one.problems for one in ended)
    lines.append(
        f"\n{len(ended)} cases, {good} good; partial publications {partial}, duplicate commits {twice}"
    )
    lines += [f"NOT GOOD {one.case}: {'; '.join(one.problems)}" for one in ended if one.problems]
    return "\n".join(lines)


def main() -> int:
    """Runs the campaign and prints its table; exit code 1 when a case is not good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--some", action="store_true", help="a third of the cases, and all lasting ones")
    parser.add_argument("--publication", type=Path, help="a publication that was assembled before")
    arguments = parser.parse_args()
    if arguments.publication is None:
        return with_publication(["--some"] if arguments.some else [])
    chosen = list(cases())
    if arguments.some:
        passing = [case for case in chosen if case.times == 1]
        lasting = [case for case in chosen if case.times != 1 and case.endpoint not in PATIENT]
        chosen = passing[::SOME_EVERY] + lasting
    judge = Judge()
    with ThreadPoolExecutor(16) as pool:
        ended = list(pool.map(lambda case: run(case, arguments.publication, judge), chosen))
    print(table(ended))
    return int(any(one.problems for one in ended))


if __name__ == "__main__":
    sys.exit(main())
