"""Machines that are not fit for a run: each is found, named and left out before anything starts there."""

from __future__ import annotations

import subprocess
import time
from importlib import metadata
from pathlib import Path

from tests.cluster.kit import Cluster, wait_for
from tests.cluster.outcome import LONG, PATIENCE, Outcome, finish, left_over
from tests.cluster.runs import Run, submit, tlscale

MEMINFO = "MemTotal:           2000 kB\nMemFree:            1000 kB\nMemAvailable:       1000 kB\n"
SMI = """#!/bin/bash
# stands for the program of a driver: two GPUs, the second one of machine n1 with memory errors
echo 0
[[ $(hostname) = n1 ]] && echo 3 || echo 0
"""


def on(cluster: Cluster, machine: str, *argv: str) -> str:
    """Runs a program with the files that a machine sees."""
    return cluster.run("nsenter", "--target", str(cluster.daemons[machine].pid), "--mount", *argv)


def instead(cluster: Cluster, machine: str, file: Path, text: str) -> None:
    """Lets one machine see another text in a file."""
    made = cluster.folder / f"{machine}-{file.name}"
    made.write_text(text)
    on(cluster, machine, "mount", "--bind", str(made), str(file))


def unfit_machine(cluster: Cluster) -> Outcome:
    """One machine's scratch disk is full: it is named and left out, before anything starts."""
    words = _full_disk(cluster, "n1")
    began = time.time()
    run = submit(cluster, "unfit", *LONG, *words, "--nodes=2")
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, "the second try")
    tries, problems = run.tries(), []
    if tries[1]["machines"] != ["n2", "n3"]:
        problems.append(f"second try on {tries[1]['machines']}")
    if "n1: " not in (tries[1]["after"] or "") or "free" not in tries[1]["after"]:
        problems.append(f"the reason was {tries[1]['after']!r}")
    run.at_step(1, PATIENCE)
    outcome = finish(run, began, tries=2)
    outcome.notes = tries[1]["after"].replace(str(cluster.folder), "")
    outcome.problems += problems
    return outcome


def every_kind(cluster: Cluster) -> Outcome:
    """Disk, memory, names, versions and the sum: five machines of eight are not fit, each in its own way.

    Three are asked for at a time; the last three must do.
    """
    words = _full_disk(cluster, "n1")
    instead(cluster, "n2", Path("/proc/meminfo"), MEMINFO)
    hosts = cluster.machines.hosts.read_text().splitlines()
    instead(cluster, "n3", Path("/etc/hosts"), "\n".join(line for line in hosts if " n1" not in line))
    installed = Path(str(metadata.distribution("accelerate").locate_file("")))
    about = installed / f"accelerate-{metadata.version('accelerate')}.dist-info" / "METADATA"
    text = about.read_text().replace(f"Version: {metadata.version('accelerate')}", "Version: 0.1.0", 1)
    instead(cluster, "n4", about, text)
    space = cluster.machines.namespace("n7")
    rule = ("ipproto", "tcp", "dport", "20000-30001", "blackhole")
    subprocess.run(["ip", "-n", space, "rule", "add", "pref", "1", *rule], check=True)
    run = submit(cluster, "kinds", *LONG, *words, "train.train_batch_size=3", "--nodes=3")
    wait_for(lambda: len(run.tries()) > 3, PATIENCE, "the fourth try")
    named = {"n1": "free", "n2": "memory", "n3": "resolve", "n4": "accelerate 0.1.0", "n7": "reach"}
    said = "; ".join(one["after"] or "" for one in run.tries()).replace(str(cluster.folder), "")
    problems = [
        f"{machine} was not named for {word}"
        for machine, word in named.items()
        if not any(part.startswith(f"{machine}: ") and word in part for part in said.split("; "))
    ]
    used = run.tries()[-1]["machines"]
    problems += [] if used == ["n5", "n6", "n8"] else [f"trained on {used}"]
    run.at_step(1, PATIENCE)
    outcome = finish(run, None, tries=4)
    outcome.notes = said.lstrip("; ")
    outcome.problems += problems
    return outcome


def no_gpus(cluster: Cluster) -> Outcome:
    """Slurm hands GPUs out that torch can't see, one with memory errors: both machines are named."""
    tool = cluster.folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI)
    tool.chmod(0o755)
    path = f"{tool.parent}:{cluster.env['PATH']}"
    mine = Cluster(cluster.folder, cluster.machines, {**cluster.env, "PATH": path}, cluster.daemons)
    words = ("launch.slurm.preflight=true", "launch.slurm.gpu_memory=80", "train.train_batch_size=4")
    run = submit(mine, "gpus", *LONG, *words, "--gpus-per-node=2", "--nodes=2")
    wait_for(lambda: "unfit" in _noted(run) and run.state == "PENDING", PATIENCE, "the examination")
    found = tlscale(mine, "status", str(run.folder)).stdout.splitlines()[-1]
    wanted = ("n1: 0 of 2 GPUs are visible", "GPU 1 has 3 uncorrected", "n2: 0 of 2 GPUs are visible")
    problems = [f"status does not say {word!r}: {found}" for word in wanted if word not in found]
    tlscale(mine, "cancel", str(run.folder))
    note = found[found.find("n1: ") :]
    return Outcome(0, len(run.tries()), notes=note, problems=problems, orphans=left_over(cluster))


def _noted(run: Run) -> str:
    file = run.folder / "attempts.jsonl"
    return file.read_text() if file.is_file() else ""


def _full_disk(cluster: Cluster, machine: str) -> tuple[str, ...]:
    """Fills the scratch disk of a machine; gives the overrides under which that matters."""
    scratch = cluster.folder / "scratch"
    scratch.mkdir()
    on(cluster, machine, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(scratch))
    return (
        f"launch.slurm.scratch={scratch}",
        "launch.slurm.min_free_gb=0.001",
        "launch.slurm.preflight=true",
    )
