"""Batch scripts for Slurm: pure renderings of a job to script text and to the arguments of `sbatch`.

Nothing that a user or a recipe writes is executed as shell: values in `#SBATCH` lines are held to the
characters that they need, all others are quoted, and paths that Slurm would expand are refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tlscale.errors import UsageError
from tlscale.recipe.launch import Slurm, plain, seconds

BODY = Path(__file__).with_name("job.bash")
# Flags that decide what runs or where its output goes; the rendering sets them itself.
OURS = (
    "array chdir dependency error input job-name kill-on-invalid-dep no-requeue nodes ntasks "
    "ntasks-per-node open-mode output parsable requeue signal test-only wait wrap"
).split()
SHORT = {"a": "array", "D": "chdir", "d": "dependency", "e": "error", "i": "input", "J": "job-name",
         "N": "nodes", "n": "ntasks", "o": "output", "W": "wait"}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What one job, or one element of an array, works through: run directories, one after the other."""

    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Job:
    """A training job. `root` holds the runs of all tasks; its `log` gets %a in place of the element."""

    name: str
    root: Path
    log: Path
    tasks: tuple[Task, ...]
    settings: Slurm
    python: str
    cpu: bool

    @property
    def world(self) -> int:
        """Processes over all machines."""
        return self.settings.nodes * self.settings.processes


@dataclass(frozen=True)
class Step:
    """A job that follows others: `tlscale` commands on one machine, up to the first that fails.

    One that is `online` reaches the Hub even where the settings keep it out of jobs.
    """

    name: str
    root: Path
    log: Path
    commands: tuple[tuple[str, ...], ...]
    settings: Slurm
    python: str
    online: bool = False


def training_script(job: Job) -> str:
    """The batch script of a training job.

    Raises:
        UsageError: a path in it can't stand in a batch script.
    """
    for path in (job.root, *(run for task in job.tasks for run in task.runs)):
        speakable(path)
    settings = job.settings
    options = [
        f"--job-name={job.name}",
        f"--nodes={settings.nodes}",
        "--ntasks-per-node=1",
        "--requeue",
        "--open-mode=append",
        f"--signal=B:USR1@{settings.save_seconds}",
        *resources(settings, settings.processes),
    ]
    if len(job.tasks) > 1:
        limit = f"%{settings.at_once}" if settings.at_once else ""
        options.append(f"--array=0-{len(job.tasks) - 1}{limit}")
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Trains {job.name}; comes back by itself after time limits, preemption and lost machines.",
            "# Written by tlscale submit; it also runs by itself: sbatch THIS_FILE.",
            *(f"#SBATCH {option}" for option in options),
            *modules(settings),
            "set -uo pipefail",
            "",
            *environment(settings, offline=settings.offline),
            *_runs(job.tasks),
            f"python={shlex.quote(job.python)}",
            f"machines={settings.nodes} processes={settings.processes}",
            f"preflight={'yes' if settings.preflight else 'no'} min_free_gb={settings.min_free_gb:g}",
            f"tries_without_progress={settings.tries_without_progress}",
            f"inside=({' '.join(inside(settings))})",
            f"export ACCELERATE_USE_CPU={'true' if job.cpu else 'false'}",
            "",
            BODY.read_text(encoding="utf-8"),
        ]
    )


def step_script(step: Step) -> str:
    """The batch script of a job that follows others.

    Raises:
        UsageError: a path in it can't stand in a batch script.
    """
    speakable(step.root)
    options = [
        f"--job-name={step.name}",
        "--nodes=1",
        "--ntasks=1",
        "--requeue",
        "--open-mode=append",
        *resources(step.settings, 1),
    ]
    commands = [shlex.join([step.python, "-m", "tlscale", *command]) for command in step.commands]
    within = " ".join(inside(step.settings))
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {step.name}: written by tlscale submit.",
            *(f"#SBATCH {option}" for option in options),
            *modules(step.settings),
            "set -euo pipefail",
            "",
            *environment(step.settings, offline=None if step.online else step.settings.offline),
            f"inside=({within})",
            *(f'srun --nodes=1 --ntasks=1 "${{inside[@]}}" {command}' for command in commands),
            "",
        ]
    )


def sbatch_argv(
    file: Path,
    log: Path,
    *,
    flags: Sequence[str] = (),
    after: Sequence[str] = (),
    kind: Literal["afterok", "afterany"] = "afterok",
) -> tuple[str, ...]:
    """The argument list that submits `file`, after the jobs `after`; `flags` are the user's own.

    In the name of `log`, but not in its folder, Slurm may fill something in, such as %a.

    A job whose predecessor failed is removed rather than left waiting for ever.

    Raises:
        UsageError: a flag would take over what the script needs.
    """
    for flag in flags:
        if not flag.startswith("-"):
            raise UsageError(f"{flag}: a flag of sbatch must be given as --name=value, after --")
        name = flag.lstrip("-").partition("=")[0]
        name = name if flag.startswith("--") else SHORT.get(name[:1], name)
        if name in OURS:
            raise UsageError(
                f"{flag}: tlscale sets {name} itself; there is an option or a recipe key for it"
            )
    chained = (f"--dependency={kind}:{':'.join(after)}", "--kill-on-invalid-dep=yes") if after else ()
    where = speakable(log.parent.absolute())
    return ("sbatch", "--parsable", f"--output={where}/{log.name}", *chained, *flags, str(speakable(file)))


def speakable(path: Path) -> Path:
    """`path`, if Slurm takes it as it is.

    Raises:
        UsageError: it has a `%` or a character that can't be printed.
    """
    try:
        plain(str(path))
    except ValueError as error:
        raise UsageError(f"{path!s}: for Slurm a path {error}; give output_dir=ANOTHER") from error
    return path


def clock(text: str) -> str:
    """A time as Slurm reads it: D-HH:MM:SS."""
    days, rest = divmod(seconds(text), 86400)
    hours, rest = divmod(rest, 3600)
    return f"{days}-{hours:02}:{rest // 60:02}:{rest % 60:02}"


def resources(settings: Slurm, processes: int) -> list[str]:
    """The options of sbatch that ask for machines and time."""
    kind = f"{settings.gpu_type}:" if settings.gpu_type else ""
    cpus = settings.cpus_per_process
    options = {
        "gpus-per-node": f"{kind}{settings.gpus_per_node}" if settings.gpus_per_node else None,
        "cpus-per-task": cpus * processes if cpus else None,
        "mem": settings.memory,
        "time": clock(settings.time) if settings.time else None,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "reservation": settings.reservation,
        "constraint": settings.constraint,
        "exclude": settings.exclude,
    }
    found = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return [*found, "--exclusive"] if settings.exclusive else found


def modules(settings: Slurm) -> list[str]:
    """Loads the modules; before bash is made strict, since their own scripts are not written for that."""
    if not settings.modules:
        return []
    return [
        "if ! command -v module >/dev/null; then",
        "  # shellcheck disable=SC1090",
        '  for file in /etc/profile.d/*mod*.sh; do . "$file"; done',
        "fi",
        *(f"module load {shlex.quote(name)} || exit 1" for name in settings.modules),
    ]


def environment(settings: Slurm, *, offline: bool | None) -> list[str]:
    """The variables of a job; `offline` is `None` for one that needs the Hub."""
    values = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if offline or offline is None:
        word = "1" if offline else "0"
        values |= {"HF_HUB_OFFLINE": word, "HF_DATASETS_OFFLINE": word}
    if settings.scratch:
        values |= {"TMPDIR": settings.scratch, "TLSCALE_SCRATCH": settings.scratch}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return lines + [f"export {name}={shlex.quote(value)}" for name, value in settings.environment.items()]


def _runs(tasks: Sequence[Task]) -> list[str]:
    """The run directories, chosen by the element of an array; a job without one has the element 0."""
    lines = ["case ${SLURM_ARRAY_TASK_ID:-0} in"]
    for index, task in enumerate(tasks):
        lines.append(f"  {index}) runs=({shlex.join(str(run) for run in task.runs)}) ;;")
    return [*lines, '  *) echo "no run has this number" >&2; exit 2 ;;', "esac"]


def inside(settings: Slurm) -> list[str]:
    """What puts a command of a step into the container: flags of srun, or a command before it."""
    if settings.container is None:
        return []
    mounts = ",".join(settings.mounts)
    if settings.container_runtime == "pyxis":
        words = [f"--container-image={settings.container}", "--container-mount-home"]
        words += [f"--container-mounts={mounts}"] if mounts else []
    else:
        words = ["apptainer", "exec"]
        words += ["--nv"] if settings.gpus_per_node else []
        words += ["--bind", mounts] if mounts else []
        words.append(settings.container)
    return [f"'{word}'" if "," in word and "'" not in word else shlex.quote(word) for word in words]
