"""Jobs that follow one another, arrays, and what a user writes into them."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.kit import ENDED, Cluster, wait_for
from tests.cluster.outcome import PATIENCE, Outcome, counted, left_over
from tests.cluster.runs import RECIPE, ROOT, Run, submit, tlscale
from tests.hub import kit as hub_kit
from tests.hub.server import Hub, serving
from tests.unit import test_slurm_login as login
from tests.unit.test_slurm_script import CANARY, HOSTILE

REPOSITORY = "ada/colours"
LOGGED = "train.logging_steps=1"
MODULE = """#%Module1.0
setenv TL_MODULE here
puts stderr "tl/1.0 loaded"
"""


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
    settled(cluster, one, two)
    made = counted(two, None, tries=1, problems=problems)
    made.notes = f"losses equal to {furthest:.0e}"
    return made


def failing_link(cluster: Cluster) -> Outcome:
    """Training -> scoring -> report, and training fails: what follows is taken out of the queue."""
    rows = cluster.folder / "work" / "rows.txt"
    rows.write_text("a row\n" * 40)
    gone = {**RECIPE, "data": {**RECIPE["data"], "train": {"path": str(rows), "text": "text"}}}
    run = submit(cluster, "link", "--evaluate", recipe=gone)
    rows.unlink()
    state = run.ended(PATIENCE)
    problems = [] if state == "FAILED" else [f"training ended as {state}"]
    later = {name: state for name, state in settled(cluster, run).items() if name != "train"}
    if set(later.values()) - {"CANCELLED", ""}:
        problems.append(f"later jobs: {later}")
    why = (run.folder / "FAILED").read_text().strip() if (run.folder / "FAILED").is_file() else ""
    return Outcome(0, len(run.tries()), notes=why[:60], problems=problems, orphans=left_over(cluster))


def whole_chain(cluster: Cluster) -> Outcome:
    """prefetch, then train -> score again and judge -> push; the job itself with the Hub out of reach."""
    with _hub(cluster) as (hub, mine):
        folder = cluster.folder / "work"
        hub_kit.recipe(folder)
        fetched = tlscale(mine, "prefetch", "recipe.yaml").stdout
        words = ("recipe.yaml", LOGGED, "--evaluate", "--gate", "--push", REPOSITORY, "--json")
        answer = json.loads(tlscale(mine, "submit", *words).stdout)
        run = Run(mine, Path(answer["run"]), answer["jobs"])
        states = settled(mine, run, patience=PATIENCE)
        pushed = hub.store.log(REPOSITORY)
    problems = [f"{name}: {state}" for name, state in states.items() if state != "COMPLETED"]
    problems += [] if hub_kit.BASE in fetched else ["nothing was fetched"]
    problems += [] if pushed else ["nothing on the Hub"]
    made = counted(run, None, tries=1, problems=problems)
    made.notes = " -> ".join(states) + f"; {len(pushed)} commits of {REPOSITORY}"
    return made


def gate_closed(cluster: Cluster) -> Outcome:
    """The same with a result that is worse than the base: the gate fails, and nothing is published."""
    with _hub(cluster) as (hub, mine):
        folder = cluster.folder / "work"
        train = {"learning_rate": 1e-2, "num_train_epochs": 30, "train_batch_size": 8}
        hub_kit.recipe(folder, name="worse", train=train)
        rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        wrong = [json.dumps({**row, "completion": "house house house"}) for row in rows]
        (folder / "train.jsonl").write_text("\n".join(wrong))
        assert "fetched" in tlscale(mine, "prefetch", "recipe.yaml").stdout
        words = ("recipe.yaml", LOGGED, "--gate", "--push", REPOSITORY, "--json")
        answer = json.loads(tlscale(mine, "submit", *words).stdout)
        run = Run(mine, Path(answer["run"]), answer["jobs"])
        states = settled(mine, run, patience=PATIENCE)
        asked = [line for line in hub.asked if REPOSITORY in line]
    wanted = {"train": "COMPLETED", "report": "FAILED", "push": "CANCELLED"}
    problems = [
        f"{name}: {states.get(name)}" for name, state in wanted.items() if states.get(name) != state
    ]
    problems += [f"the Hub was asked: {asked}"] if asked else []
    made = counted(run, None, tries=1, problems=problems)
    made.notes = ", ".join(f"{name} {state}" for name, state in states.items())
    return made


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
    return Outcome(0, 3, notes=f"{most} at once, one report", problems=problems, orphans=left_over(cluster))


def array_of_a_sweep(cluster: Cluster) -> Outcome:
    """Three jobs share a grid of three trials, at most two at a time; one page and one best recipe."""
    recipe: dict[str, Any] = json.loads(json.dumps(RECIPE))
    recipe["data"]["validation"] = recipe["data"]["test"]
    recipe["train"]["max_steps"] = 5
    choices = {"train.learning_rate": {"choices": [1e-4, 1e-3, 1e-2]}}
    recipe["sweep"] = {"sampler": "grid", "metric": "nll", "parameters": choices}
    run = submit(cluster, "grid", "--sweep=3", "--at-once=2", recipe=recipe)
    number, most = run.jobs["sweep"], 0
    end = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < end:
        states = cluster.run(
            "squeue", "--noheader", "--array", f"--jobs={number}", "--format=%T", check=False
        )
        most = max(most, states.split().count("RUNNING"))
        if not states.split():
            break
        time.sleep(1)
    done = json.loads(tlscale(cluster, "status", str(run.folder), "--json").stdout)[0]["state"]
    log = run.folder / "trials.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    problems = [] if 1 <= most <= 2 else [f"{most} ran at once"]
    problems += [] if done == "done" and (run.folder / "best.yaml").is_file() else [f"it is {done}"]
    ended = {row["number"] for row in rows if row["state"] == "complete"}
    problems += [] if len(ended) == 3 else [f"{len(ended)} trials of 3: {rows[-1:]}"]
    note = f"{most} at once, {len(ended)} trials, one best.yaml"
    return Outcome(0, 3, notes=note, problems=problems, orphans=left_over(cluster))


def login_without_torch(cluster: Cluster) -> Outcome:
    """submit, status and logs by a Python that has no torch; the job has another one."""
    work = cluster.folder / "work"
    login.packages(work / "site")
    recipe: dict[str, Any] = json.loads(json.dumps(RECIPE))
    recipe["launch"]["slurm"]["python"] = sys.executable
    recipe["train"]["max_steps"] = 5
    (work / "login.yaml").write_text(json.dumps({**recipe, "name": "login"}))
    env = {"SLURM_CONF": cluster.env["SLURM_CONF"], "PATH": cluster.env["PATH"]}
    answer = json.loads(login.tlscale(work, "submit", "login.yaml", "--json", **env))
    run = Run(cluster, Path(answer["run"]), answer["jobs"])
    states = settled(cluster, run, patience=PATIENCE)
    problems = [f"{name}: {state}" for name, state in states.items() if state != "COMPLETED"]
    shown = login.tlscale(work, "status", str(run.folder), **env).splitlines()[-1].split()
    problems += (
        []
        if "done" in shown and "step" in login.tlscale(work, "logs", str(run.folder), **env)
        else [str(shown)]
    )
    made = counted(run, None, tries=1, problems=problems)
    made.notes = " ".join(shown[1:7])
    return made


def modules(cluster: Cluster) -> Outcome:
    """`module load` before the run, by the real program; and a module that isn't there ends the job."""
    assert list(Path("/etc/profile.d").glob("*mod*.sh")), "needs environment-modules or lmod (Debian)"
    folder = cluster.folder / "modules" / "tl"
    folder.mkdir(parents=True)
    (folder / "1.0").write_text(MODULE)
    mine = replace(cluster, env={**cluster.env, "MODULEPATH": str(folder.parent)})
    run = submit(mine, "module", "train.max_steps=5", "launch.slurm.modules=[tl/1.0]")
    none = submit(mine, "none", "train.max_steps=5", "launch.slurm.modules=[tl/2.0]")
    states = [run.ended(PATIENCE), none.ended(PATIENCE)]
    problems = [] if states == ["COMPLETED", "FAILED"] else [f"ended as {states}"]
    problems += [] if "tl/1.0 loaded" in run.log() else ["the module was not loaded"]
    problems += ["a run began without its module"] if none.tries() else []
    settled(mine, run, none)
    made = counted(run, None, tries=1, problems=problems)
    made.notes = "; ".join(line for line in none.log().splitlines() if "tl/2.0" in line)[:80]
    return made


def hostile_values(cluster: Cluster) -> Outcome:
    """Every value that may stand in a job, in a real one: its folder, its variables, flags of sbatch."""
    work = cluster.folder / "work"
    kept = [text for text in HOSTILE if text.isprintable() and "%" not in text and not text.startswith("-")]
    recipe = json.loads(json.dumps(RECIPE))
    recipe["launch"]["slurm"]["environment"] |= {f"V{n}": text for n, text in enumerate(kept)}
    recipe["train"]["max_steps"] = 5
    recipe["output_dir"] = f'runs/a\'b "$({CANARY})" `{CANARY}` ; {CANARY} & {CANARY}'
    run = submit(cluster, "hostile", "--", f"--comment=$({CANARY}); {CANARY}", recipe=recipe)
    state = run.ended(PATIENCE)
    settled(cluster, run)
    made_there = [str(file) for file in cluster.folder.rglob("CANARY")] + [
        str(file) for file in (ROOT / "CANARY", Path.home() / "CANARY") if file.exists()
    ]
    problems = [] if state == "COMPLETED" else [f"ended as {state}"]
    problems += [f"executed: {made_there}"] if made_there else []
    assert work in run.folder.parents
    made = counted(run, None, tries=1, problems=problems)
    made.notes = f"{len(kept)} variables, the folder and a flag; {len(made_there)} executed"
    return made


def page(cluster: Cluster) -> Outcome:
    """docs/cluster.md, "From laptop to cluster in ten minutes", command by command."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    work, home = cluster.folder / "work", cluster.folder / "home"
    site = home / ".config" / "tlscale" / "site.yaml"
    site.parent.mkdir(parents=True)
    (profile,) = re.findall(r"```\n(partition: .*?)```", text, re.DOTALL)
    site.write_text(profile)
    (recipe,) = re.findall(r"```yaml\n# first\.yaml\n(.*?)```", text, re.DOTALL)
    (work / "first.yaml").write_text(recipe)
    program = home / "bin" / "tlscale"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tlscale "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{cluster.env['PATH']}"
    env = {**cluster.env, "PATH": path, "HOME": str(home), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    mine, began, done = replace(cluster, env=env), time.monotonic(), 0
    folder = work / "runs" / "first"
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    for command in filter(None, (line.partition("#")[0].strip() for line in lines)):
        if command.split()[1] in ("logs", "cancel"):
            run = _page_run(mine, folder)
            wait_for(partial(_speaks, run), PATIENCE, "the first steps")
        mine.run("bash", "-c", command, cwd=work)
        done += 1
    run = _page_run(mine, folder)
    states = settled(mine, run, patience=PATIENCE)
    minutes = (time.monotonic() - began) / 60
    problems = [f"{name}: {state}" for name, state in states.items() if state != "COMPLETED"]
    problems += [] if (folder / "report.html").is_file() else ["no report"]
    problems += [] if minutes < 10 else [f"took {minutes:.0f} minutes"]
    made = counted(run, None, tries=2, problems=problems, every_step=False)
    made.notes = f"{done} commands of the page, {minutes:.1f} minutes to report.html"
    return made


def _speaks(run: Run) -> bool:
    return bool(run.log()) and len(run.steps()) > 2


def _page_run(cluster: Cluster, folder: Path) -> Run:
    return Run(cluster, folder, json.loads((folder / "slurm" / "job.json").read_text())["jobs"])


def settled(cluster: Cluster, *runs: Run, patience: float = 120) -> dict[str, str]:
    """Waits for the end of all jobs of runs; the states of the last run's, by name."""

    def states(run: Run) -> dict[str, str]:
        return {name: cluster.state(number) for name, number in run.jobs.items()}

    def over() -> bool:
        return all(state in ENDED | {""} for run in runs for state in states(run).values())

    wait_for(over, patience, f"the jobs {[run.jobs for run in runs]}")
    return states(runs[-1])


@contextmanager
def _hub(cluster: Cluster) -> Iterator[tuple[Hub, Cluster]]:
    """A Hub that the machines reach, and a user of the cluster who has a token for it."""
    address = cluster.machines.address(cluster.machines.host)
    with serving(cluster.folder / "hub", host=address) as hub:
        hub_kit.with_base(hub, cluster.folder / "base")
        env = hub_kit.environment(hub, cluster.folder / "hub-home")
        slurm = {name: cluster.env[name] for name in ("SLURM_CONF", "PATH")}
        yield hub, replace(cluster, env={**env, **slurm, "HF_HUB_OFFLINE": "0"})
