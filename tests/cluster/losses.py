"""What comes without a warning: machines, networks, processes and the controller are lost."""

from __future__ import annotations

import time

from tests.cluster.kit import ENDED, Cluster, wait_for
from tests.cluster.outcome import (
    LONG,
    PATIENCE,
    Outcome,
    after,
    at,
    counted,
    kill_ranks,
    ranks_on,
    went_on,
)
from tests.cluster.runs import submit


def power_off(cluster: Cluster) -> Outcome:
    """The machine of a job loses power."""
    run = submit(cluster, "power", *LONG)
    fault = at(run, 12, lambda: cluster.stop_node(cluster.job(run.number)["NodeList"]))
    return went_on(run, fault, graceful=False)


def network_cut(cluster: Cluster) -> Outcome:
    """The first of two machines is cut off, with the disk still in its reach; a third one steps in.

    What the first machine still runs must end there by itself, before it is joined again and after.
    """
    run = submit(cluster, "cut", *LONG, "--nodes=2")
    lost = "n1"
    fault = at(run, 12, lambda: cluster.machines.cut(lost))
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    began = run.tries()[-1]["time"]
    problems = [] if lost not in run.tries()[-1]["machines"] else [f"{lost} was used again"]
    wait_for(lambda: not ranks_on(cluster, lost), 60, "the end of the old ranks")
    fenced = time.time() - began
    wait_for(lambda: len(after(run, began)) > 3, PATIENCE, "steps of another try")
    alone = [line for line in cluster.processes() if line.startswith(f"{lost}: ")]
    problems += [f"on the lost machine: {alone}"] if alone else []
    cluster.machines.join(lost)
    note = f"{run.tries()[-1]['after']}; old ranks gone {fenced:.0f} s after the new try began"
    outcome = went_on(run, fault, graceful=False, notes=note)
    outcome.problems += problems
    return outcome


def worker_killed(cluster: Cluster) -> Outcome:
    """A worker gets SIGKILL, as from the kernel when memory runs out."""
    run = submit(cluster, "killed", *LONG)
    fault = at(run, 12, lambda: kill_ranks(cluster))
    return went_on(run, fault, graceful=False)


def killed_without_controller(cluster: Cluster) -> Outcome:
    """A worker gets SIGKILL while slurmctld is away: the job comes back once it is there."""
    run = submit(cluster, "alone", *LONG)
    run.at_step(12, PATIENCE)
    cluster.stop_controller()
    fault = time.time()
    kill_ranks(cluster)
    time.sleep(15)
    cluster.start_controller()
    return went_on(run, fault, graceful=False)


def no_progress(cluster: Cluster) -> Outcome:
    """A worker that is killed at every start: given up after two tries that gained nothing."""
    run = submit(cluster, "stuck", *LONG, "launch.slurm.tries_without_progress=2")
    end = time.monotonic() + PATIENCE
    while run.state not in ENDED | {""} and time.monotonic() < end:
        kill_ranks(cluster)
        time.sleep(0.5)
    problems = [] if run.state == "FAILED" else [f"ended as {run.state}"]
    why = (run.folder / "FAILED").read_text().strip() if (run.folder / "FAILED").is_file() else ""
    problems += [] if "got no further" in why else [f"the reason was {why!r}"]
    made = counted(run, None, graceful=False, tries=3, problems=problems)
    made.notes = why
    return made
