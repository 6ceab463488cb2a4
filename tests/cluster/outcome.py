"""What a scenario cost: counted from the run's own records, and from the processes that are left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.kit import Cluster, wait_for
from tests.cluster.runs import SAVE_STEPS, Run, tlscale

# A loaded machine takes a minute to start two ranks; nothing that is measured depends on it.
PATIENCE = 300
LONG = ("train.max_steps=2000", f"train.save_steps={SAVE_STEPS}")
# No scenario may leave a run without any sign of progress for longer, in seconds.
LONGEST_PAUSE = 120


@dataclass
class Outcome:
    """What a scenario came to.

    `lost` counts steps whose work was thrown away, `repeated` those computed more than once; `pause` is the
    longest time between two signs of progress, and `came_back` that from the fault to the first step after
    it, both in seconds.
    """

    lost: int
    tries: int
    repeated: int = 0
    pause: float | None = None
    came_back: float | None = None
    graceful: bool = True
    notes: str = ""
    problems: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No step lost on a graceful stop, else at most the save interval; no hang, nothing left."""
        allowed = 0 if self.graceful else SAVE_STEPS
        cheap = max(self.lost, self.repeated) <= allowed and (self.pause or 0) <= LONGEST_PAUSE
        return cheap and not self.problems and not self.orphans


def at(run: Run, step: int, do: Callable[[], object]) -> float:
    """Does something after a step; returns when."""
    run.at_step(step, PATIENCE)
    fault = time.time()
    do()
    return fault


def went_on(
    run: Run, fault: float, *, graceful: bool = True, tries: int | None = 2, notes: str = ""
) -> Outcome:
    """Waits until training has gone on in another try, and ends the run."""
    wait_for(lambda: len(run.tries()) > 1, PATIENCE, f"another try of {run.folder}; it is {run.state}")
    began = run.tries()[-1]["time"]
    reached = max(run.steps())
    wait_for(lambda: after(run, began) and max(run.steps()) > reached + 2, PATIENCE, "steps of another try")
    return finish(run, fault, graceful=graceful, tries=tries, notes=notes)


def finish(
    run: Run, fault: float | None, *, graceful: bool = True, tries: int | None, notes: str = ""
) -> Outcome:
    """Ends a run that would go on for long."""
    tlscale(run.cluster, "cancel", str(run.folder), "--json")
    made = counted(run, fault, graceful=graceful, tries=tries, problems=[])
    made.notes = notes or made.notes
    return made


def counted(
    run: Run,
    fault: float | None,
    *,
    graceful: bool = True,
    tries: int | None,
    problems: list[str],
    every_step: bool = True,
) -> Outcome:
    """Counts what it cost, once nothing of the run is left; `every_step` is on file, or only some are."""
    found = run.tries()
    if tries is not None and len(found) != tries:
        problems = [*problems, f"{len(found)} tries: {[one['after'] for one in found]}"]
    if every_step and run.missing():
        problems = [*problems, f"{run.missing()} steps are missing"]
    later = after(run, found[-1]["time"] if len(found) > 1 else fault) if fault is not None else []
    return Outcome(
        lost=run.lost(),
        tries=len(found),
        repeated=run.repeated(),
        pause=run.pause(),
        came_back=later[0] - fault if later and fault is not None else None,
        graceful=graceful,
        notes=(found[-1]["after"] or "") if found else "",
        problems=problems,
        orphans=left_over(run.cluster),
    )


def left_over(cluster: Cluster) -> list[str]:
    """What still runs on the machines 20 seconds after the end."""
    orphans: list[str] = []
    for _ in range(40):
        orphans = cluster.processes()
        if not orphans:
            break
        time.sleep(0.5)
    return orphans


def after(run: Run, moment: float) -> list[float]:
    """When the steps after a moment were done."""
    return [row["time"] for row in run.rows("step") if row["time"] > moment]


def signalled(cluster: Cluster, name: str, run: Run, *flags: str) -> None:
    """Sends a signal to the training job by Slurm's own program."""
    cluster.run("scancel", *flags, f"--signal={name}", run.number, check=False)


def ranks_on(cluster: Cluster, machine: str) -> list[str]:
    """The ranks and launchers on a machine."""
    mine = [line for line in cluster.processes() if line.startswith(f"{machine}: ")]
    return [line for line in mine if "tlscale.worker" in line]


def kill_ranks(cluster: Cluster) -> bool:
    """SIGKILL to the first rank that is found; whether there was one."""
    for name in cluster.machines.names:
        space = cluster.machines.namespace(name)
        listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=True)
        for pid in listed.stdout.split():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"tlscale.worker" in words and b"accelerate.commands.launch" not in words:
                    os.kill(int(pid), signal.SIGKILL)
                    return True
            except OSError:
                continue
    return False
