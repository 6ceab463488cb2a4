"""What happens to jobs on clusters, done for real, with the steps that it cost counted.

Each scenario is a function of a fresh cluster and gives an `Outcome`; `python -m tests.cluster.campaign`
runs all of them and prints the table.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.kit import ENDED, Cluster, wait_for
from tests.cluster.runs import RECIPE, SAVE_STEPS, Run, submit, tlscale

# A loaded machine takes a minute to start two ranks; nothing that is measured depends on it.
PATIENCE = 300
LONG = ("train.max_steps=2000", f"train.save_steps={SAVE_STEPS}")


@dataclass
class Outcome:
    """What a scenario came to; `came_back` is seconds from the fault to the first step after it."""

    lost: int
    tries: int
    came_back: float | None = None
    graceful: bool = True
    notes: str = ""
    problems: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No step lost on a graceful stop, else at most the save interval, and nothing left running."""
        allowed = 0 if self.graceful else SAVE_STEPS
        return self.lost <= allowed and not self.problems and not self.orphans


def two_machines(cluster: Cluster) -> Outcome:
    """Training on two machines gives what one gives."""
    words = ("train.max_steps=12", "train.train_batch_size=4")
    one, two = submit(cluster, "one", *words), submit(cluster, "two", *words, "--nodes=2")
    problems = [
        f"{run.folder.name}: {state}" for run in (one, two) if (state := run.ended(PATIENCE)) != "COMPLETED"
    ]
    losses = [[row["loss"] for row in run.rows("step")] for run in (one, two)]
    furthest = max((abs(a - b) / abs(a) for a, b in zip(*losses, strict=False)), default=1.0)
    if furthest > 1e-5 or len(losses[0]) != len(losses[1]):
        problems.append(f"losses differ by {furthest:.1e}")
    return Outcome(two.repeated(), 1, notes=f"losses equal to {furthest:.0e}", problems=problems)


def usr1(cluster: Cluster) -> Outcome:
    """The signal that Slurm sends before the time limit: save, requeue, go on to the end, report."""
    run = submit(cluster, "usr1", "train.max_steps=60", f"train.save_steps={SAVE_STEPS}")
    fault = _at(run, 12, lambda: _signal(cluster, "USR1", run, "--batch"))
    state = run.ended(PATIENCE)
    problems = [] if state == "COMPLETED" else [f"ended as {state}"]
    wait_for(lambda: cluster.state(run.jobs["report"]) in ENDED, PATIENCE, "the report")
    if not (run.folder / "report.html").is_file():
        problems.append("no report")
    if len(set(run.steps())) != 60:
        problems.append(f"{len(set(run.steps()))} steps of 60")
    return _outcome(run, fault, tries=2, problems=problems)


def usr1_two_machines(cluster: Cluster) -> Outcome:
    """The same on two machines."""
    run = submit(cluster, "usr1two", *LONG, "--nodes=2")
    fault = _at(run, 12, lambda: _signal(cluster, "USR1", run, "--batch"))
    return _went_on(run, fault)


def preemption(cluster: Cluster) -> Outcome:
    """A job of a higher partition takes the machines."""
    run = submit(cluster, "preempted", *LONG)
    urgent = (
        "sbatch",
        "--parsable",
        "-p",
        "urgent",
        "--exclusive",
        "-N2",
        "-o",
        "/dev/null",
        "--wrap",
        "sleep 5",
    )
    fault = _at(run, 12, lambda: cluster.run(*urgent))
    return _went_on(run, fault)


def time_limit(cluster: Cluster) -> Outcome:
    """The job's own time runs out, with Slurm's own signal before it."""
    run = submit(cluster, "limit", *LONG, "launch.slurm.save_seconds=30", "--time=3m")
    run.at_step(5, PATIENCE)
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    return _went_on(run, run.tries()[-1]["time"])


def power_off(cluster: Cluster) -> Outcome:
    """The machine of a job loses power."""
    run = submit(cluster, "power", *LONG)
    fault = _at(run, 12, lambda: cluster.stop_node(cluster.job(run.number)["NodeList"]))
    return _went_on(run, fault, graceful=False)


def network_cut(cluster: Cluster) -> Outcome:
    """The first of two machines is cut off, with the disk still in its reach; a third one steps in."""
    run = submit(cluster, "cut", *LONG, "--nodes=2")
    lost = "n1"
    fault = _at(run, 12, lambda: cluster.machines.cut(lost))
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    problems = [] if lost not in run.tries()[-1]["machines"] else [f"{lost} was used again"]
    wait_for(lambda: not _on(cluster, lost), 60, "the end of the old ranks")
    run.at_step(max(run.steps()) + 3, PATIENCE)
    cluster.machines.join(lost)
    outcome = _went_on(run, fault, graceful=False)
    outcome.problems += problems
    return outcome


def worker_killed(cluster: Cluster) -> Outcome:
    """A worker gets SIGKILL, as from the kernel when memory runs out."""
    run = submit(cluster, "killed", *LONG)
    fault = _at(run, 12, lambda: os.kill(_workers(cluster)[0], signal.SIGKILL))
    return _went_on(run, fault, graceful=False)


def controller_restart(cluster: Cluster) -> Outcome:
    """slurmctld is killed and started anew while a job runs."""
    run = submit(cluster, "controller", *LONG)
    run.at_step(8, PATIENCE)
    cluster.stop_controller()
    time.sleep(5)
    cluster.start_controller()
    fault = time.time()
    wait_for(lambda: run.state == "RUNNING", 60, "the controller")
    run.at_step(max(run.steps()) + 8, PATIENCE)
    return _finish(run, fault, tries=1)


def double_term(cluster: Cluster) -> Outcome:
    """TERM to everything, twice, three seconds apart."""
    run = submit(cluster, "twice", *LONG)

    def twice() -> None:
        _signal(cluster, "TERM", run, "--full")
        time.sleep(3)
        cluster.run("scancel", "--full", "--signal=TERM", run.number, check=False)

    # the second one may come late and cost another try, but no step
    return _went_on(run, _at(run, 12, twice), tries=None)


def stale_term(cluster: Cluster) -> Outcome:
    """A TERM that was meant for one try reaches the next, while it starts."""
    run = submit(cluster, "stale", *LONG)
    fault = _at(run, 12, lambda: _signal(cluster, "USR1", run, "--batch"))
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    time.sleep(2)
    cluster.run("scancel", "--full", "--signal=TERM", run.number, check=False)
    return _went_on(run, fault, tries=None)


def scancel(cluster: Cluster) -> Outcome:
    """Somebody runs scancel: saved, not queued again; `tlscale resume` goes on."""
    run = submit(cluster, "scancelled", *LONG)
    fault = _at(run, 12, lambda: cluster.run("scancel", run.number))
    state = run.ended(60)
    problems = [] if state == "CANCELLED" else [f"ended as {state}"]
    again = json.loads(tlscale(cluster, "resume", str(run.folder), "--json").stdout)
    outcome = _went_on(Run(cluster, run.folder, again["jobs"]), fault)
    outcome.problems += problems
    return outcome


def cancel(cluster: Cluster) -> Outcome:
    """`tlscale cancel` saves, ends the whole chain, and leaves nothing queued."""
    run = submit(cluster, "cancelled", *LONG)
    fault = _at(run, 12, lambda: None)
    told = json.loads(tlscale(cluster, "cancel", str(run.folder), "--json").stdout)
    problems = [] if told["unsaved"] == [] else ["not saved in time"]
    left = [one for one in run.jobs.values() if cluster.state(one) not in ENDED]
    problems += [f"{left} still there"] if left else []
    again = json.loads(tlscale(cluster, "resume", str(run.folder), "--json").stdout)
    outcome = _went_on(Run(cluster, run.folder, again["jobs"]), fault)
    outcome.problems += problems
    return outcome


def unfit_machine(cluster: Cluster) -> Outcome:
    """One machine's scratch disk is full: it is named and left out, before anything starts."""
    scratch = cluster.folder / "scratch"
    scratch.mkdir()
    node = str(cluster.daemons["n1"].pid)
    inside = ("nsenter", "--target", node, "--mount")
    cluster.run(*inside, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(scratch))
    words = (
        f"launch.slurm.scratch={scratch}",
        "launch.slurm.min_free_gb=0.001",
        "launch.slurm.preflight=true",
    )
    began = time.time()
    run = submit(cluster, "unfit", *LONG, *words, "--nodes=2")
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    tries, problems = run.tries(), []
    if tries[1]["machines"] != ["n2", "n3"]:
        problems.append(f"second try on {tries[1]['machines']}")
    if "n1: " not in (tries[1]["after"] or "") or "free" not in tries[1]["after"]:
        problems.append(f"the reason was {tries[1]['after']!r}")
    run.at_step(1, PATIENCE)
    outcome = _finish(run, began, tries=2)
    outcome.notes = tries[1]["after"].replace(str(cluster.folder), "")
    outcome.problems += problems
    return outcome


def failing_link(cluster: Cluster) -> Outcome:
    """Training -> scoring -> report, and training fails: what follows is taken out of the queue."""
    rows = cluster.folder / "work" / "rows.txt"
    rows.write_text("a row\n" * 40)
    gone = {**RECIPE, "data": {**RECIPE["data"], "train": {"path": str(rows), "text": "text"}}}
    run = submit(cluster, "link", "--evaluate", recipe=gone)
    rows.unlink()
    state = run.ended(PATIENCE)
    problems = [] if state == "FAILED" else [f"training ended as {state}"]
    states = wait_for(lambda: _settled(cluster, run), 30, "the later jobs")
    if set(states.values()) - {"CANCELLED", ""}:
        problems.append(f"later jobs: {states}")
    why = (run.folder / "FAILED").read_text().strip() if (run.folder / "FAILED").is_file() else ""
    return Outcome(0, len(run.tries()), notes=why[:60], problems=problems, orphans=cluster.processes())


def array_of_seeds(cluster: Cluster) -> Outcome:
    """Three seeds, at most two at a time, and one report over all."""
    recipe: dict[str, Any] = {**RECIPE, "seeds": [0, 1, 2], "train": {**RECIPE["train"], "max_steps": 10}}
    run = submit(cluster, "seeds", "--at-once=2", recipe=recipe)
    most, end = 0, time.monotonic() + 2 * PATIENCE
    while cluster.state(run.jobs["report"]) not in ENDED and time.monotonic() < end:
        rows = json.loads(tlscale(cluster, "status", str(run.folder), "--json").stdout)
        most = max(most, sum(row["state"] == "running" for row in rows))
        time.sleep(1)
    problems = [] if 1 <= most <= 2 else [f"{most} ran at once"]
    verdict = run.folder / "verdict.json"
    found = json.loads(verdict.read_text()) if verdict.is_file() else {"claims": []}
    if [claim["n_seeds"] for claim in found["claims"] if claim["name"] == "target"] != [3]:
        problems.append("no verdict over three seeds")
    return Outcome(
        0, 3, notes=f"{most} at once, one report", problems=problems, orphans=cluster.processes()
    )


SCENARIOS: dict[str, tuple[Callable[[Cluster], Outcome], int]] = {
    "two machines equal one": (two_machines, 2),
    "USR1, requeue, resume": (usr1, 1),
    "USR1 on two machines": (usr1_two_machines, 2),
    "preemption": (preemption, 2),
    "time limit": (time_limit, 1),
    "power-off of a machine": (power_off, 2),
    "network cut of a machine": (network_cut, 3),
    "SIGKILL of a worker": (worker_killed, 1),
    "restart of the controller": (controller_restart, 1),
    "TERM twice": (double_term, 1),
    "stale TERM": (stale_term, 1),
    "scancel, then resume": (scancel, 1),
    "tlscale cancel, then resume": (cancel, 1),
    "a machine fails preflight": (unfit_machine, 3),
    "a link of the chain fails": (failing_link, 1),
    "array of seeds": (array_of_seeds, 2),
}


def _at(run: Run, step: int, do: Callable[[], object]) -> float:
    """Does something after a step; returns when."""
    run.at_step(step, PATIENCE)
    fault = time.time()
    do()
    return fault


def _went_on(run: Run, fault: float, *, graceful: bool = True, tries: int | None = 2) -> Outcome:
    """Waits until training has gone on in another try, and ends the run."""
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, f"another try of {run.folder}; it is {run.state}")
    began = run.tries()[-1]["time"]
    reached = max(run.steps())
    wait_for(
        lambda: _after(run, began) and max(run.steps()) > reached + 2, PATIENCE, "steps of another try"
    )
    return _finish(run, fault, graceful=graceful, tries=tries)


def _after(run: Run, moment: float) -> list[float]:
    return [row["time"] for row in run.rows("step") if row["time"] > moment]


def _outcome(
    run: Run, fault: float, *, graceful: bool = True, tries: int | None, problems: list[str]
) -> Outcome:
    """Counts what it cost, once nothing of the run is left."""
    found = run.tries()
    if tries is not None and len(found) != tries:
        problems = [*problems, f"{len(found)} tries: {[one['after'] for one in found]}"]
    if run.missing():
        problems = [*problems, f"{run.missing()} steps are missing"]
    later = _after(run, found[-1]["time"] if len(found) > 1 else fault)
    orphans: list[str] = []
    for _ in range(40):
        orphans = run.cluster.processes()
        if not orphans:
            break
        time.sleep(0.5)
    return Outcome(
        lost=run.repeated(),
        tries=len(found),
        came_back=later[0] - fault if later else None,
        graceful=graceful,
        notes=found[-1]["after"] or "",
        problems=problems,
        orphans=orphans,
    )


def _finish(run: Run, fault: float, *, graceful: bool = True, tries: int | None) -> Outcome:
    """Ends a run that would go on for long."""
    tlscale(run.cluster, "cancel", str(run.folder), "--json")
    return _outcome(run, fault, graceful=graceful, tries=tries, problems=[])


def _signal(cluster: Cluster, name: str, run: Run, *flags: str) -> None:
    cluster.run("scancel", *flags, f"--signal={name}", run.number)


def _on(cluster: Cluster, machine: str) -> list[str]:
    """The ranks and launchers on a machine."""
    mine = [line for line in cluster.processes() if line.startswith(f"{machine}: ")]
    return [line for line in mine if "tlscale.worker" in line]


def _settled(cluster: Cluster, run: Run) -> dict[str, str] | None:
    states = {name: cluster.state(number) for name, number in run.jobs.items() if name != "train"}
    return states if all(state in ENDED | {""} for state in states.values()) else None


def _workers(cluster: Cluster) -> list[int]:
    """The process numbers of the ranks on all machines."""
    found = []
    for name in cluster.machines.names:
        space = cluster.machines.namespace(name)
        listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=True)
        for pid in listed.stdout.split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"tlscale.worker" in words and b"accelerate.commands.launch" not in words:
                found.append(int(pid))
    return found
