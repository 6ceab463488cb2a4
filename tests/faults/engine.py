"""Trials of the training loop alone: real processes forked from this one, which has imported everything.

Each rank is a process of its own that trains a small Llama, is really killed or signalled, and is followed
by another one that goes on. With two ranks they meet over gloo.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from tests.faults import hooks
from tests.faults.outcome import Outcome
from tlscale.errors import TlscaleError
from tlscale.planning.types import Sharding, World
from tlscale.runs import ledger

SECONDS = 120.0
EPOCHS = 2
ROWS_PER_STEP = 6


@dataclass(frozen=True)
class Setting:
    """How a trial trains; the rows of a step are always the same."""

    world: int = 1
    accumulation: int = 1
    packing: bool = False
    grouped: bool = False
    beside: bool = False
    stream: bool = False
    workers: int = 0
    dropout: float = 0.2
    sharding: Sharding = "none"


def work(folder: Path, setting: Setting, rank: int, port: int, fault: Mapping[str, Any] | None) -> int:
    """One rank, from its start to its end; the exit code."""
    os.environ |= {"ACCELERATE_USE_CPU": "true"}
    if setting.world > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(setting.world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    if fault is not None:
        os.environ |= {"FAULT": json.dumps(fault), "WARM_NOTES": str(folder / "notes")}
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState

    from tests.faults.rows import COUNT, given
    from tests.unit import test_engine_loop as small
    from tlscale.engine.keeper import Place
    from tlscale.engine.loop import train
    from tlscale.engine.runtime import Runtime
    from tlscale.engine.signals import Stops
    from tlscale.planning.types import Batch, Safety

    # What this process was forked from may have met an accelerator before, in a world of its own.
    AcceleratorState._reset_state(reset_partial_state=True)
    handlers = [InitProcessGroupKwargs(backend="gloo")] if setting.world > 1 else []
    accelerator = Accelerator(cpu=True, kwargs_handlers=handlers)
    micro = ROWS_PER_STEP // setting.accumulation // setting.world
    rows = given(
        folder, stream=setting.stream, workers=setting.workers, packing=setting.packing, leads=rank == 0,
        per_step=ROWS_PER_STEP,
    )  # fmt: skip
    made = small.training(
        folder / "checkpoints", micro=micro, accumulation=setting.accumulation, rows=COUNT, validation=4,
        epochs=float(EPOCHS), max_steps=rows.max_steps, save_steps=2, eval_steps=3,
    )  # fmt: skip
    stage = made.planned.stage.model_copy(
        update={"group_by_length": setting.grouped, "safety": Safety(async_save=setting.beside)}
    )
    stops = Stops()
    made = replace(
        made,
        planned=made.planned.model_copy(
            update={
                "stage": stage,
                "batch": Batch(micro=micro, accumulation=setting.accumulation, world=setting.world),
            }
        ),
        runtime=Runtime(accelerator, accelerator.device, rank, setting.world, _world(setting)),
        examples=rows.examples,
        place=Place("train", folder / "checkpoints", folder / "ledger", folder / "replay", "trial"),
        stops=stops,
    )
    module = small.llama(setting.dropout)
    torch.manual_seed(7 + rank)
    if fault is not None:
        hooks.install()
    with stops.heard(), stops.deferred():
        done = train(module, made)
    tensors = {name: t.detach().clone() for name, t in sorted(done.session.tensors().items())}
    done.session.close()
    rows.close()
    if rank == 0:
        digest = hashlib.sha256()
        for tensor in tensors.values():
            digest.update(tensor.numpy().tobytes())
        assert isinstance(made.watcher, small.Heard)
        state = {n: t.flatten().tolist() for n, t in tensors.items()}
        said = {"digest": digest.hexdigest(), "losses": made.watcher.losses, "state": state}
        (folder / "result.json").write_text(json.dumps(said))
    return 0


def _world(setting: Setting) -> World:
    return World(
        device="cpu", processes=setting.world, dtype="float32", memory_per_device=None,
        sharding=setting.sharding,
    )  # fmt: skip


def ranks(
    folder: Path,
    setting: Setting,
    fault: Mapping[str, Any] | None = None,
    meanwhile: Callable[[Sequence[int]], None] = lambda pids: None,
) -> list[int]:
    """Runs all ranks to their end; their exit codes, negative for signals, 124 for one that never ended."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    (folder / "notes").write_text("")
    for rank in range(setting.world):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _child(folder, setting, rank, port, fault)
        pids.append(pid)
        with (folder / "notes").open("a") as notes:
            notes.write(f"tlscale.worker {pid}\n")
    meanwhile(pids)
    return _ended(pids)


def _child(
    folder: Path, setting: Setting, rank: int, port: int, fault: Mapping[str, Any] | None
) -> NoReturn:
    code = 1
    try:
        with (folder / f"rank-{rank}.err").open("a") as said:
            os.dup2(said.fileno(), 2)
            os.dup2(said.fileno(), 1)
            try:
                code = work(folder, setting, rank, port, fault)
            except TlscaleError as error:
                print(error, file=said)
                code = int(error.exit_code)
            except (RuntimeError, ValueError, OSError, AssertionError, KeyError, TypeError):
                traceback.print_exc(file=said)
    finally:
        os._exit(code)


def _ended(pids: Sequence[int]) -> list[int]:
    """Waits for all; when one is killed the others are, as their agent would do."""
    codes: dict[int, int] = {}
    until = time.monotonic() + SECONDS
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        killed = any(code == -signal.SIGKILL for code in codes.values())
        late = time.monotonic() > until
        if killed or late:
            for pid in pids:
                if pid not in codes:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    codes[pid] = 124 if late else -signal.SIGKILL
        time.sleep(0.002)
    return [codes[pid] for pid in pids]


@dataclass(frozen=True)
class Result:
    """What a run came to in the end."""

    digest: str
    losses: list[float]
    state: dict[str, list[float]]


def result(folder: Path) -> Result:
    """What the last process of a trial left."""
    return Result(**json.loads((folder / "result.json").read_text()))


def wrong_with(folder: Path, like: Result, *, exact: bool, most_lost: int) -> Outcome:
    """What speaks against a run that went on having lost nothing it may not lose."""
    made = ledger.audit(folder / "ledger", "train")
    whole = 0 if made is None else sum(1 for _, twice, never in made.epochs if not twice and not never)
    if made is None or made.problems or whole != EPOCHS:
        return Outcome(f"the ledger does not prove exactly once: {made}")
    found, lost = result(folder), made.repeated
    after = like.losses[len(like.losses) - len(found.losses) :]
    if lost > most_lost:
        return Outcome(f"{lost} steps were lost, of at most {most_lost}", lost)
    if exact and found.digest != like.digest:
        return Outcome("other weights than without the fault", lost)
    if exact and found.losses != after:
        return Outcome("other losses than without the fault", lost)
    off = max((abs(a - b) / abs(b) for a, b in zip(found.losses, after, strict=True)), default=0.0)
    if off > 1e-5:
        return Outcome(f"losses differ by {off:.1e}", lost)
    moved = max(abs(a - b) for n in like.state for a, b in zip(found.state[n], like.state[n], strict=True))
    return Outcome(f"weights differ by {moved:.1e}" if moved > 1e-5 else "", lost)
