"""The batch script of a search: an array of jobs that share its trials, each taking the next one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from tlscale.launching.slurm import environment, inside, modules, resources, speakable
from tlscale.recipe.launch import Slurm

BODY = Path(__file__).with_name("search.bash")


@dataclass(frozen=True)
class Search:
    """`jobs` elements of an array that all run `command`, a `tlscale sweep`, in the folder `root`."""

    name: str
    root: Path
    jobs: int
    command: tuple[str, ...]
    settings: Slurm
    python: str


def search_script(search: Search) -> str:
    """The batch script of a search.

    Raises:
        UsageError: its folder can't stand in a batch script.
    """
    speakable(search.root)
    settings = search.settings
    limit = f"%{settings.at_once}" if settings.at_once else ""
    options = [
        f"--job-name={search.name}-sweep",
        "--nodes=1",
        "--ntasks=1",
        "--requeue",
        "--open-mode=append",
        f"--signal=B:USR1@{settings.save_seconds}",
        *resources(settings, settings.processes),
        f"--array=0-{search.jobs - 1}{limit}",
    ]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Searches the settings of {search.name}; the jobs of this array share the trials.",
            "# Written by tlscale submit.",
            *(f"#SBATCH {option}" for option in options),
            *modules(settings),
            "set -uo pipefail",
            "",
            *environment(settings, offline=settings.offline),
            f"root={shlex.quote(str(search.root))}",
            f"inside=({' '.join(inside(settings))})",
            f"command=({shlex.join((search.python, '-m', 'tlscale', *search.command))})",
            "",
            BODY.read_text(encoding="utf-8"),
        ]
    )
