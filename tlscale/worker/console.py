"""What a run says while it works: one line a phase, a progress bar on a terminal, events always."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tlscale.errors import WriteError
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import event

PLAIN_SECONDS = 15.0
MOST_UNSAID = 1000
Log = Callable[[Mapping[str, float], int], None]


class Reporter:
    """Writes events to the run directory and speaks for rank 0; the others only log.

    `unit` is what training counts, tokens or rows; `log` passes values on to experiment trackers. Where
    it is `patient`, events that can't be written wait for a disk that has room again.
    """

    def __init__(
        self,
        layout: RunLayout,
        *,
        rank: int,
        logging_steps: int,
        unit: str,
        log: Log,
        patient: bool = False,
    ) -> None:
        self._layout, self._rank, self._every, self._log = layout, rank, logging_steps, log
        self._unit, self._patient = unit, patient
        self._unsaid: deque[Callable[[], None]] = deque(maxlen=MOST_UNSAID)
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._spoken = time.monotonic()

    def said(self, happened: str, **facts: Any) -> None:
        """Records an event; rank 0 only, since all ranks hear the same.

        Raises:
            WriteError: the system refuses, and a run is to stop when it can't write.
        """
        if self._rank != 0:
            return
        self._unsaid.append(lambda: event(self._layout.events, happened, **facts))
        try:
            while self._unsaid:
                self._unsaid[0]()
                self._unsaid.popleft()
        except WriteError:
            if not self._patient:
                raise

    def phase(self, name: str, text: str) -> None:
        """One line of output: what a phase came to."""
        if self._rank == 0:
            self._console.print(f"{name:<9} {text}", markup=False)

    def warn(self, text: str) -> None:
        """Something the user should know but need not act on."""
        self.said("warning", text=text)
        self.phase("note", text)

    def step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """One optimizer step is done."""
        if self._rank != 0:
            return
        if step % self._every == 0 or step in (1, steps):
            self.said("step", step=step, steps=steps, **{k: float(f"{v:.7g}") for k, v in values.items()})
            self._log(values, step)
        about = f"loss {values['loss']:.3f}  {values['tokens_per_second']:,.0f} {self._unit}/s"
        if self._console.is_terminal:
            self._draw(step, steps, about)
        elif step in (1, steps) or time.monotonic() - self._spoken > PLAIN_SECONDS:
            self._spoken = time.monotonic()
            self.phase("train", f"{step:,}/{steps:,}  {about}  lr {values['learning_rate']:.2e}")

    def _draw(self, step: int, steps: int, about: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("train    "),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}  {task.fields[about]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("train", total=steps, about=about)
        self._bar.update(self._task, completed=step, total=steps, about=about)
        if step == steps:
            self.close()

    def close(self) -> None:
        """Leaves the terminal as it was; safe to call twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
