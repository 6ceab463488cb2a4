"""Stops that leave time to save: by Slurm, by its user, and by somebody's own batch script."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.cluster.kit import ENDED, Cluster, wait_for
from tests.cluster.outcome import LONG, PATIENCE, Outcome, at, counted, finish, signalled, went_on
from tests.cluster.runs import RECIPE, ROOT, SAVE_STEPS, Run, submit, tlscale

URGENT = (
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


def usr1(cluster: Cluster) -> Outcome:
    """The signal that Slurm sends before the time limit: save, requeue, go on to the end, report."""
    run = submit(cluster, "usr1", "train.max_steps=60", f"train.save_steps={SAVE_STEPS}")
    fault = at(run, 12, lambda: signalled(cluster, "USR1", run, "--batch"))
    state = run.ended(PATIENCE)
    problems = [] if state == "COMPLETED" else [f"ended as {state}"]
    wait_for(lambda: cluster.state(run.jobs["report"]) in ENDED, PATIENCE, "the report")
    if not (run.folder / "report.html").is_file():
        problems.append("no report")
    if len(set(run.steps())) != 60:
        problems.append(f"{len(set(run.steps()))} steps of 60")
    return counted(run, fault, tries=2, problems=problems)


def usr1_two_machines(cluster: Cluster) -> Outcome:
    """The same on two machines."""
    run = submit(cluster, "usr1two", *LONG, "--nodes=2")
    fault = at(run, 12, lambda: signalled(cluster, "USR1", run, "--batch"))
    return went_on(run, fault)


def preemption(cluster: Cluster) -> Outcome:
    """A job of a higher partition takes the machines."""
    run = submit(cluster, "preempted", *LONG)
    fault = at(run, 12, lambda: cluster.run(*URGENT))
    return went_on(run, fault)


def time_limit(cluster: Cluster) -> Outcome:
    """The job's own time runs out, with Slurm's own signal before it."""
    run = submit(cluster, "limit", *LONG, "launch.slurm.save_seconds=30", "--time=2m")
    run.at_step(5, PATIENCE)
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    return went_on(run, run.tries()[-1]["time"])


def double_term(cluster: Cluster) -> Outcome:
    """TERM to the script and its steps, twice, as Slurm sends it when it preempts with a grace time."""
    run = submit(cluster, "twice", *LONG)

    def once() -> None:
        signalled(cluster, "TERM", run)
        signalled(cluster, "TERM", run, "--batch")

    fault = at(run, 12, once)
    time.sleep(3)
    # the second one may come late and cost another try, but no step
    once()
    return went_on(run, fault, tries=None)


def double_term_to_srun(cluster: Cluster) -> Outcome:
    """The same to srun too, which kills its step at once: nothing can be saved, nothing is harmed."""
    run = submit(cluster, "hard", *LONG)
    fault = at(run, 12, lambda: signalled(cluster, "TERM", run, "--full"))
    time.sleep(3)
    signalled(cluster, "TERM", run, "--full")
    return went_on(run, fault, graceful=False, tries=None)


def stale_term(cluster: Cluster) -> Outcome:
    """A TERM that was meant for one try reaches the next, while it starts."""
    run = submit(cluster, "stale", *LONG)
    fault = at(run, 12, lambda: signalled(cluster, "USR1", run, "--batch"))
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    time.sleep(2)
    signalled(cluster, "TERM", run, "--full")
    return went_on(run, fault, tries=None)


def scancel(cluster: Cluster) -> Outcome:
    """Somebody runs scancel: saved, not queued again; `tlscale resume` goes on."""
    run = submit(cluster, "scancelled", *LONG)
    fault = at(run, 12, lambda: cluster.run("scancel", run.number))
    state = run.ended(60)
    problems = [] if state == "CANCELLED" else [f"ended as {state}"]
    again = json.loads(tlscale(cluster, "resume", str(run.folder), "--json").stdout)
    outcome = went_on(Run(cluster, run.folder, again["jobs"]), fault)
    outcome.problems += problems
    return outcome


def cancel(cluster: Cluster) -> Outcome:
    """`tlscale cancel` saves, ends the whole chain, and leaves nothing queued."""
    run = submit(cluster, "cancelled", *LONG)
    fault = at(run, 12, lambda: None)
    told = json.loads(tlscale(cluster, "cancel", str(run.folder), "--json").stdout)
    problems = [] if told["unsaved"] == [] else ["not saved in time"]
    left = [one for one in run.jobs.values() if cluster.state(one) not in ENDED]
    problems += [f"{left} still there"] if left else []
    again = json.loads(tlscale(cluster, "resume", str(run.folder), "--json").stdout)
    outcome = went_on(Run(cluster, run.folder, again["jobs"]), fault)
    outcome.problems += problems
    return outcome


def one_machine_template(cluster: Cluster) -> Outcome:
    """launch/one-machine.sbatch by plain sbatch: saves, comes back, ends."""
    return _template(cluster, "one-machine", nodes=1)


def several_machines_template(cluster: Cluster) -> Outcome:
    """launch/several-machines.sbatch by plain sbatch: saves, comes back, ends."""
    return _template(cluster, "several-machines", nodes=2)


def _template(cluster: Cluster, name: str, *, nodes: int) -> Outcome:
    work = cluster.folder / "work"
    recipe = {**RECIPE, "name": name, "train": {**RECIPE["train"], "max_steps": 60}}
    recipe["hardware"] = {"processes": nodes, "machines": nodes} if nodes > 1 else {}
    (work / f"{name}.yaml").write_text(json.dumps(recipe))
    template = str(ROOT / "launch" / f"{name}.sbatch")
    argv = ("sbatch", "--parsable", "--gpus-per-node=0", template, f"{name}.yaml")
    env = {**cluster.env, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    number = Cluster(cluster.folder, cluster.machines, env).run(*argv, cwd=work)
    run = Run(cluster, work / "runs" / name, {"train": number})
    fault = at(run, 12, lambda: signalled(cluster, "USR1", run, "--batch"))
    state = run.ended(PATIENCE)
    problems = [] if state == "COMPLETED" else [f"ended as {state}: {_said(work, number)}"]
    if len(set(run.steps())) != 60:
        problems.append(f"{len(set(run.steps()))} steps of 60")
    made = counted(run, fault, tries=None, problems=problems)
    restarts = len(run.rows("resumed"))
    made.tries, made.notes = (
        restarts + 1,
        f"plain sbatch, {nodes} machine(s), DONE after {restarts} return(s)",
    )
    return made


def _said(work: Path, number: str) -> str:
    file = work / f"slurm-{number}.log"
    return file.read_text(errors="replace")[-300:] if file.is_file() else "no log"


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
    return finish(run, fault, tries=1)
