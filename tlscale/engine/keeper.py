"""Keeps a stage's training: saves it by policy, finds where to go on, and notes what it consumed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tlscale.engine import checkpoint, store
from tlscale.engine.backend import Session
from tlscale.engine.checkpoint import Progress, Subject
from tlscale.engine.runtime import Runtime
from tlscale.errors import WriteError
from tlscale.planning.types import Safety
from tlscale.runs import ledger
from tlscale.runs.ledger import Attempt, Ledger, Record


class Told(Protocol):
    """Hears what happened."""

    def said(self, happened: str, **facts: Any) -> None: ...

    def warn(self, text: str) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where a stage's files are, and what vouches for them: `key` names the plan they belong to.

    `guard` is called before each write, and ends the process when it may not write any more.
    """

    stage: str
    checkpoints: Path
    ledger: Path
    replay: Path
    key: str
    guard: Callable[[], None] = field(default=lambda: None)


class Background:
    """Does one piece of writing at a time, beside training where asked to."""

    def __init__(self, beside: bool) -> None:
        self._beside = beside
        self._thread: threading.Thread | None = None
        self._failed: WriteError | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Starts `work` once what came before is done."""
        self._join()
        if not self._beside:
            self._try(work)
            return
        self._thread = threading.Thread(target=self._try, args=(work,), name="checkpoint")
        self._thread.start()

    def done(self) -> str:
        """Waits; gives what went wrong since this was last asked, in words."""
        self._join()
        failed, self._failed = self._failed, None
        return "" if failed is None else str(failed)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except WriteError as error:
            self._failed = error


class Keeper:
    """One stage's checkpoints and ledger. Its methods are collective unless they say otherwise."""

    def __init__(self, place: Place, safety: Safety, runtime: Runtime, told: Told) -> None:
        self._place, self._safety, self._runtime, self._told = place, safety, runtime, told
        self._background = Background(safety.async_save)
        self._ledger: Ledger | None = None
        self._saved = 0

    def restore(self, into: Subject, examples: int | None, total: int) -> Progress:
        """Puts training into the newest whole checkpoint, or leaves it at its start.

        `examples`, `None` of a stream, and `total`, rows a step, are noted in the ledger of this attempt.
        """
        place, runtime = self._place, self._runtime
        # one process looks, since what others see of a shared disk may be older
        if runtime.leads:
            store.sweep(place.checkpoints)
            found = checkpoint.newest(place.checkpoints, place.key)
            name = None if found.folder is None else found.folder.name
            seen = (
                name,
                found.passed_over,
                ledger.last_step(place.ledger),
                ledger.next_attempt(place.ledger),
            )
        else:
            seen = (None, (), 0, 0)
        name, passed_over, reached, attempt = runtime.collect([seen])[0]
        for reason in passed_over:
            self._told.warn(f"a checkpoint of stage {place.stage} is passed over: {reason}")
        progress, world = Progress(), runtime.world
        if name is not None:
            progress, world = checkpoint.load(place.checkpoints / name, into, runtime)
        self._saved = progress.step
        self._ledger = Ledger(
            place.ledger,
            Attempt(place.stage, attempt, runtime.rank, runtime.world, progress.step, examples, total),
        )
        if attempt > 1:
            self._say_resumed(name, progress.step, max(0, reached - progress.step), world)
        return progress

    def _say_resumed(self, name: str | None, step: int, lost: int, world: int) -> None:
        facts = {"stage": self._place.stage, "step": step, "checkpoint": name, "lost_steps": lost}
        self._told.said("resumed", **facts, processes_before=world)
        what = f"{lost:,} steps after the last save were lost and are done again"
        self._told.warn(
            f"stage {self._place.stage} goes on after step {step:,}; {what if lost else 'nothing was lost'}"
        )
        if world != self._runtime.world:
            self._told.warn(
                f"the checkpoint is of {world} processes, and now there are {self._runtime.world}: every "
                "example comes once an epoch all the same, but what is random inside a step differs"
            )

    def note(self, record: Record) -> None:
        """Notes what this process was given in a step. Not collective."""
        if self._ledger is not None:
            self._ledger.add(record)

    def save(self, what: Subject, progress: Progress, *, last: bool = False) -> None:
        """Saves training as it stands; with `last`, it is on disk when this returns.

        Raises:
            WriteError: a file can't be written, and the policy is to stop, or it was the `last`.
        """
        wrong = self._background.done()
        if self._ledger is not None:
            try:
                self._ledger.sync()
            except WriteError as error:
                wrong = wrong or str(error)
        made = checkpoint.snapshot(what, progress, self._runtime)
        if made is not None:
            self._background.do(lambda: self._write(made))
        if last or not self._safety.async_save:
            wrong = wrong or self._background.done()
        if not self._agreed(wrong, last):
            self._saved = progress.step

    def _write(self, made: checkpoint.Snapshot) -> None:
        self._place.guard()
        checkpoint.write(self._place.checkpoints, made, self._place.key, self._safety.keep_checkpoints)

    def save_once(self, what: Subject, progress: Progress) -> None:
        """Saves for the last time, unless it is saved already."""
        if self._agreed(self._background.done(), False) or self._saved != progress.step:
            self.save(what, progress, last=True)

    def best(self, session: Session, progress: Progress) -> None:
        """Keeps the present weights as the best.

        Raises:
            WriteError: as for `save`.
        """
        wrong = self._background.done()
        made = checkpoint.weights(session, self._runtime)
        if made is not None:
            self._background.do(lambda: self._write_best(made, progress.best_step))
        if not self._safety.async_save:
            wrong = wrong or self._background.done()
        self._agreed(wrong, False)

    def _write_best(self, made: Mapping[str, Any], step: int) -> None:
        self._place.guard()
        checkpoint.write_best(self._place.checkpoints, made, step, self._place.key)

    def load_best(self, session: Session, step: int) -> None:
        """Puts the best weights back, once they are on disk."""
        self._agreed(self._background.done(), False)
        reason = checkpoint.load_best(self._place.checkpoints, session, step, self._place.key)
        if reason is not None:
            self._told.warn(
                f"the weights of the lowest validation loss, after step {step}, can't be loaded: {reason}; "
                "the last ones are used"
            )

    def settle(self) -> None:
        """Waits until everything is on disk.

        Raises:
            WriteError: as for `save`.
        """
        self._agreed(self._background.done(), False)

    def close(self) -> None:
        """Lets go of files and threads, whatever happened. Not collective."""
        self._background.done()
        if self._ledger is not None:
            self._ledger.close()

    def _agreed(self, wrong: str, last: bool) -> bool:
        """Whether anything went wrong on any process; then all stop, or all go on, by policy."""
        reasons = [reason for reason in self._runtime.collect([wrong]) if reason]
        if not reasons:
            return False
        if last or self._safety.on_save_failure == "stop":
            raise WriteError(
                f"{reasons[0]}; every checkpoint that was there is still whole. Make room and give the "
                "same command again, or let training go on without saving by train.on_save_failure=continue"
            )
        self._told.warn(f"not saved: {reasons[0]}; training goes on, as train.on_save_failure says")
        self._told.said("save_failed", stage=self._place.stage, reason=reasons[0])
        return True
