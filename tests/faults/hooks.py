"""Makes a fault happen inside a worker, at an exact point: the nth time that it comes by.

The environment says what: FAULT is a JSON object with `point` (`path:TEXT` for operations on paths with
TEXT in them), `nth` (from 1), `rank` (or null for any) and `act`, the name of a signal for this process, or
hold (the interpreter's lock) or sleep. With `to` the signal goes to all workers or to the launcher, whose
numbers are in WARM_NOTES.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

LONG = 600
PATH = "path:"
OPERATIONS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree")


def install() -> None:
    """Waits for the point."""
    fault = json.loads(os.environ["FAULT"])
    rank = int(os.environ.get("RANK", "0"))
    if fault.get("rank") not in (None, rank):
        return
    seen = 0

    def passed() -> None:
        nonlocal seen
        seen += 1
        if seen == fault["nth"]:
            _act(fault)

    if fault["point"] == "save":
        _at_save(passed)
    elif fault["point"].startswith(PATH):
        _at_path(fault["point"].removeprefix(PATH), passed)
    else:
        _at_torch(fault["point"], passed)


def _at_save(passed: Any) -> None:
    """Every operation of the system on a checkpoint that is being written, or being removed."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS:
            text = str(arguments[0])
            if "/checkpoints/" in text and "manifest.json" not in text.rpartition("step-")[0]:
                passed()

    sys.addaudithook(audit)


def _at_path(part: str, passed: Any) -> None:
    """Every operation of the system on a file or folder whose path has `part` in it."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS and part in str(arguments[0]):
            passed()

    sys.addaudithook(audit)


def _at_torch(point: str, passed: Any) -> None:
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    trained = False

    def forward(module: Any, inputs: Any) -> None:
        nonlocal trained
        # one of the modules of a pass
        if type(module).__name__ not in ("LlamaForCausalLM",):
            return
        trained = trained or module.training
        if point == "forward" and module.training:
            passed()
        if point == "evaluation" and trained and not module.training:
            passed()

    def step(optimizer: Any, arguments: Any, keywords: Any) -> None:
        if point == "optimizer":
            passed()

    register_module_forward_pre_hook(forward)
    register_optimizer_step_pre_hook(step)


def _act(fault: dict[str, Any]) -> None:
    note = os.environ.get("FAULT_TIME")
    if note:
        Path(note).write_text(repr(time.time()))
    if fault["act"] == "hold":
        ctypes.PyDLL(None).sleep(LONG)
    elif fault["act"] == "sleep":
        time.sleep(LONG)
    else:
        number = getattr(signal, fault["act"])
        for pid in _targets(fault.get("to")):
            os.kill(pid, number)


def _targets(to: str | None) -> list[int]:
    if to is None:
        return [os.getpid()]
    module = {"all": "tlscale.worker", "launcher": "tlscale"}[to]
    started = [line.split() for line in Path(os.environ["WARM_NOTES"]).read_text().splitlines()]
    return [int(number) for name, number in started if name == module]
