"""Jobs as `tlscale submit` makes them, for the tests of batch scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tlscale.launching.search import Search
from tlscale.launching.slurm import Job, Step, Task
from tlscale.recipe.launch import Slurm


def job(
    *runs: tuple[str, ...],
    root: str = "/data/runs/demo",
    python: str = "/opt/env/bin/python",
    **settings: Any,
) -> Job:
    """A job with one task for each tuple of run directories."""
    asked = Slurm.model_validate_json(Slurm(**settings).model_dump_json())
    tasks = tuple(Task(tuple(map(Path, task))) for task in runs or ((root,),))
    log = Path(root) / "logs" / "train.log"
    return Job("demo", Path(root), log, tasks, asked, python, cpu=not asked.gpus_per_node)


def step(
    *commands: tuple[str, ...],
    root: str = "/data/runs/demo",
    python: str = "/opt/env/bin/python",
    **settings: Any,
) -> Step:
    """A job that follows others."""
    return Step(
        "demo-report", Path(root), Path(root) / "logs" / "report.log", commands, Slurm(**settings), python
    )


def search(*words: str, root: str = "/data/runs/demo-sweep", **settings: Any) -> Search:
    """Jobs that share a search."""
    asked = Slurm.model_validate_json(Slurm(**settings).model_dump_json())
    command = ("sweep", "/data/demo.yaml", *words)
    return Search("demo", Path(root), 8, command, asked, "/opt/env/bin/python")


SEARCH = search("train.max_steps=9", gpus_per_node=1, time="4h", at_once=2, modules=("cuda/12.4",))
GOLDEN = {
    "one-machine": job(time="90m", preflight=False),
    "four-machines": job(
        nodes=4, gpus_per_node=8, gpu_type="h100", cpus_per_process=12, memory="900G", time="12:00:00",
        partition="gpu,gpu-long", account="nlp", qos="high", constraint="ib&nvme", exclude="node[03,07]",
        exclusive=True, modules=("cuda/12.4", "gcc/13"), environment={"NCCL_SOCKET_IFNAME": "ib0"},
        scratch="/scratch/me", save_seconds=300,
    ),
    "seeds-in-pyxis": job(
        ("/data/runs/demo/seed-0/arms/features", "/data/runs/demo/seed-0"),
        ("/data/runs/demo/seed-1/arms/features", "/data/runs/demo/seed-1"),
        nodes=2, gpus_per_node=4, time="4h", at_once=1, container="registry/team/image:1",
        mounts=("/data:/data", "/models:/models"),
    ),
    "apptainer": job(gpus_per_node=1, container="/images/it's.sif", container_runtime="apptainer",
                     mounts=("/data:/data",)),
}  # fmt: skip
