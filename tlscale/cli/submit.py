"""`tlscale submit`: from a recipe to jobs in the queue of a cluster."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlscale.cli.inspect import must_fit
from tlscale.cli.publish import before_training
from tlscale.errors import ExitCode, UsageError
from tlscale.launching import queue
from tlscale.launching.site import settings
from tlscale.launching.slurm import Job, Step, Task, sbatch_argv, step_script, training_script
from tlscale.launching.status import submitted
from tlscale.outer.repeat import RunSpec, prepare, runs_of
from tlscale.planning.facts import on_hub
from tlscale.planning.hub import fetched
from tlscale.planning.render import headline
from tlscale.recipe.launch import Slurm
from tlscale.recipe.load import load_recipe
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json, write_text

OPTIONS = (
    "nodes gpus_per_node processes_per_node cpus_per_process memory time partition account qos constraint "
    "exclude at_once"
).split()


@dataclass(frozen=True)
class Script:
    """A batch script, where it goes, and how it is submitted once the ones before it have numbers."""

    name: str
    text: str
    file: Path
    log: Path
    flags: tuple[str, ...]

    def argv(self, after: Sequence[str]) -> tuple[str, ...]:
        """The arguments of `sbatch`."""
        return sbatch_argv(self.file, self.log, flags=self.flags, after=after)


def submit(arguments: argparse.Namespace) -> int:
    """Plans, writes the run directories and scripts, and submits; with --dry-run only prints."""
    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    recipe, asked = resolved(Path(arguments.recipe), arguments.overrides, given)
    if arguments.sweep is not None:
        from tlscale.cli.search import submit_search

        return submit_search(arguments, asked)
    specs = runs_of(recipe, offline=arguments.offline)
    for spec in specs:
        must_fit(spec.plan)
    root = Path(recipe.output_dir or f"runs/{recipe.name}").absolute()
    scripts = rendered(recipe, asked, specs, root, arguments)
    if arguments.dry_run:
        show(scripts)
        return int(ExitCode.OK)
    already_queued(root)
    before_training(specs[0].plan, offline=arguments.offline, to=arguments.push)
    _must_be_fetched(recipe, asked, arguments.recipe)
    for spec in specs:
        prepare(spec, Path(arguments.recipe))
    if not arguments.json:
        print(f"plan      {headline(specs[0].plan)}   {specs[0].layout.plan}")
    numbers = enqueue(scripts, root, [[str(r) for r in task.runs] for task in tasks(specs)])
    said(numbers, root, asked, arguments.json)
    return int(ExitCode.OK)


def _must_be_fetched(recipe: Recipe, asked: Slurm, file: str) -> None:
    """A job that can't reach the Hub needs the base in the cache before it starts.

    Raises:
        UsageError: it is not there.
    """
    model = recipe.model
    if not asked.offline or not on_hub(model.model_name_or_path):
        return
    if not fetched(model.model_name_or_path, model.revision, code=model.trust_remote_code):
        raise UsageError(
            f"model.model_name_or_path: {model.model_name_or_path}: its weights are not in the Hub's "
            f"cache, and jobs run without the Hub; run `tlscale prefetch {file}` here first, or set "
            "launch.slurm.offline: false where machines reach it"
        )


def resolved(file: Path, overrides: Sequence[str], given: dict[str, Any]) -> tuple[Recipe, Slurm]:
    """The recipe for the machines that are asked for, and what is asked for.

    Raises:
        UsageError: the recipe's own hardware says otherwise.
    """
    recipe = load_recipe(file, overrides, environment=os.environ)
    asked = settings(recipe, given)
    world, hardware = asked.nodes * asked.processes, recipe.hardware
    if "processes" in hardware.model_fields_set and hardware.processes != world:
        raise UsageError(
            f"hardware.processes is {hardware.processes}, but {asked.nodes} machine(s) with "
            f"{asked.processes} process(es) are asked for; leave it out of the recipe"
        )
    if "machines" in hardware.model_fields_set and hardware.machines != asked.nodes:
        raise UsageError(
            f"hardware.machines is {hardware.machines}, but launch.slurm.nodes is {asked.nodes}; leave "
            "the first out of the recipe"
        )
    device = "cuda" if asked.gpus_per_node else "cpu"
    if hardware.device not in ("auto", device):
        raise UsageError(
            f"hardware.device is {hardware.device}, but {asked.gpus_per_node} GPUs per machine are asked "
            "for; set launch.slurm.gpus_per_node, or leave hardware.device out of the recipe"
        )
    more = [
        f"hardware.processes={world}",
        f"hardware.machines={asked.nodes}",
        f"hardware.device={device}",
    ]
    if device == "cuda" and hardware.memory_per_device is None and asked.gpu_memory is not None:
        more.append(f"hardware.memory_per_device={asked.gpu_memory}")
    return load_recipe(file, [*overrides, *more], environment=os.environ), asked


def tasks(specs: Sequence[RunSpec]) -> tuple[Task, ...]:
    """One task for each seed: its control arms, then the run itself."""
    return tuple(Task(tuple(one.layout.root.absolute() for one in (*spec.arms, spec))) for spec in specs)


def rendered(
    recipe: Recipe,
    asked: Slurm,
    specs: Sequence[RunSpec],
    root: Path,
    arguments: argparse.Namespace,
) -> tuple[Script, ...]:
    """The scripts of the chain: training, scoring and judging, handing on."""
    python, layout, flags = asked.python or sys.executable, RunLayout(root), arguments.passed_on
    many = len(specs) > 1
    job = Job(
        recipe.name, root, layout.job_log("train"), tasks(specs), asked, python, not asked.gpus_per_node
    )
    log = layout.job_log("train-%a" if many else "train")
    made = [Script("train", training_script(job), layout.batch_script("train"), log, flags)]
    runs = [str(spec.layout.root.absolute()) for spec in specs]
    gate = ("--gate",) if arguments.gate else ()
    judged: list[tuple[str, ...]] = [("eval", run) for run in runs] if arguments.evaluate else []
    judged.append(("report", str(root), *gate))
    on_cpu = asked.model_copy(update={"gpus_per_node": 0, "processes_per_node": 1, "time": None})
    steps = [("report", tuple(judged), asked if arguments.evaluate else on_cpu)]
    if arguments.push is not None or recipe.publish is not None:
        to = () if arguments.push is None else ("--to", arguments.push)
        steps.append(("push", (("push", runs[0], *to),), on_cpu))
    for name, commands, needs in steps:
        online, log = name == "push", layout.job_log(name)
        step = Step(f"{recipe.name}-{name}", root, log, commands, needs, python, online)
        file = layout.batch_script(name)
        made.append(Script(name, step_script(step), file, log, flags))
    return tuple(made)


def show(scripts: Sequence[Script]) -> None:
    """Prints every script and the line that would submit it."""
    after: list[str] = []
    for script in scripts:
        print(f"# {script.file}\n{script.text}")
        print(f"{shlex.join(script.argv(after))}\n")
        after = [f"JOB_{script.name.upper()}"]


def already_queued(root: Path) -> None:
    """Refuses to submit what is in the queue.

    Raises:
        UsageError: a job of this run waits or runs.
    """
    before = submitted(RunLayout(root))
    for job in queue.queued(list(before.jobs.values()) if before else ()):
        if job.state in queue.LIVE:
            raise UsageError(
                f"{root}: job {job.number} of this run is {job.state.lower()}; tlscale status shows it, "
                "tlscale cancel ends it"
            )


def enqueue(scripts: Sequence[Script], root: Path, runs: list[list[str]]) -> dict[str, str]:
    """Writes the scripts and submits them, each after the one before; returns their numbers.

    Raises:
        SlurmError: Slurm refuses one; those before it are taken back.
    """
    layout = RunLayout(root)
    for script in scripts:
        script.log.parent.mkdir(parents=True, exist_ok=True)
        write_text(script.file, script.text)
    numbers: dict[str, str] = {}
    try:
        for script in scripts:
            numbers[script.name] = queue.submit(script.argv(list(numbers.values())[-1:]))
    except queue.SlurmError:
        queue.cancel(list(numbers.values()))
        raise
    told = {"submitted": round(time.time(), 3), "jobs": numbers, "runs": runs, "flags": scripts[0].flags}
    write_json(layout.job, told)
    return numbers


def said(numbers: dict[str, str], root: Path, asked: Slurm, as_json: bool) -> None:
    """Tells what was submitted."""
    if as_json:
        print(json.dumps({"run": str(root), "jobs": numbers}))
        return
    chain = " -> ".join(f"{name} {number}" for name, number in numbers.items())
    print(f"submitted {chain}   {asked.nodes} machine(s) x {asked.processes} process(es)")
    print(
        f"Next: tlscale status {shlex.quote(str(root))}    tlscale logs {shlex.quote(str(root))} --follow"
    )
