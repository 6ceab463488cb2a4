"""What a run has come to, from its small files alone, so that a request is refused at once."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tlscale.errors import Stopped, UsageError
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import claim

OTHER_KINDS = {
    "adapters": "several adapters, which can't all be added to one base",
    "checkpoint": "a full checkpoint, which has its own weights already",
    "head": "a head over a frozen base, which adds no weights to the base's",
}


def existing(path: Path) -> RunLayout:
    """The run in `path`.

    Raises:
        UsageError: there is none, or there are several: one for each seed.
    """
    layout = RunLayout(path)
    if layout.plan.is_file():
        return layout
    seeds = seed_runs(path)
    if seeds:
        named = ", ".join(str(seed.root) for seed in seeds)
        raise UsageError(f"{path} holds one run for each seed; name one of them: {named}")
    raise UsageError(f"{path}: not a run directory (it has no {layout.plan.name})")


def seed_runs(path: Path) -> tuple[RunLayout, ...]:
    """The runs of a folder that has one for each seed, in the order of their seeds."""
    found = [folder for folder in path.glob("seed-*") if RunLayout(folder).plan.is_file()]
    return tuple(RunLayout(folder) for folder in sorted(found, key=lambda f: (len(f.name), f.name)))


def mark_stopped(layout: RunLayout, error: Stopped) -> None:
    """Leaves the marker STOPPED, unless another process did.

    Raises:
        WriteError: the system refuses.
    """
    facts = {"reason": error.reason, "stage": error.stage, "step": error.step, "steps": error.steps}
    claim(layout.stopped, json.dumps({**facts, "time": round(time.time(), 3)}) + "\n")


def read_stopped(layout: RunLayout) -> Stopped | None:
    """Who asked a run to stop, and where it did, if it was asked and nothing has gone on since."""
    try:
        said = json.loads(layout.stopped.read_text(encoding="utf-8"))
        return Stopped(said["reason"], stage=said["stage"], step=said["step"], steps=said["steps"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        # whoever puts an empty file there means it all the same
        return Stopped("an unknown request")


def result_kind(layout: RunLayout) -> str | None:
    """adapter, adapters, head or checkpoint; `None` while the run has left no result.

    Raises:
        UsageError: the file that names it is damaged.
    """
    if not layout.result.is_file():
        return None
    try:
        kind: str = json.loads(layout.result.read_text(encoding="utf-8"))["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{layout.result}: damaged ({error}); give the command of the run again, and it is written anew"
        ) from error
    return kind


def mergeable(layout: RunLayout, target: Path) -> None:
    """Refuses a merge that can't be meant.

    Raises:
        UsageError: the run has no adapter, or `target` exists.
    """
    kind = result_kind(layout)
    if kind is None:
        raise UsageError(f"{layout.root}: the run has left no result that could be merged")
    if kind != "adapter":
        raise UsageError(
            f"{layout.root}: nothing to merge: the run's result, {layout.adapter}, is {OTHER_KINDS[kind]}"
        )
    if target.exists():
        raise UsageError(f"{target} exists; name another folder with --output, or remove it")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{target}: {above} is a file; name another folder with --output")
