"""Micro-batch x accumulation x processes: what the recipe leaves open is settled here."""

from __future__ import annotations

from collections.abc import Callable

from tlscale.errors import PlanError
from tlscale.planning.types import AskedBatch, Batch

ROWS_PER_STEP = 32


def choose(asked: AskedBatch, processes: int, fits: Callable[[int], bool]) -> Batch:
    """The batch of a stage; `fits(rows)` says whether a micro-batch of so many rows fits on a device.

    An automatic micro-batch is the largest that fits and divides the rows of a device and step. Without
    train_batch_size a step has as near to 32 rows as the numbers that are given allow, at most.

    Raises:
        PlanError: the numbers that the recipe gives contradict each other.
    """
    micro, accumulation = asked.per_device_train_batch_size, asked.gradient_accumulation_steps
    total = asked.train_batch_size
    if micro != "auto" and accumulation != "auto":
        return _agreeing(total, micro, accumulation, processes)
    if total is None:
        given = next((n for n in (micro, accumulation) if n != "auto"), 1)
        rows = given * max(1, ROWS_PER_STEP // (processes * given))
    else:
        rows = _per_device(total, processes)
    if micro != "auto":
        accumulation = _divided(rows, micro, "per_device_train_batch_size", processes)
    elif accumulation != "auto":
        micro = _divided(rows, accumulation, "gradient_accumulation_steps", processes)
    else:
        micro = _largest(rows, fits)
        accumulation = rows // micro
    return Batch(micro=micro, accumulation=accumulation, world=processes)


def _per_device(total: int, processes: int) -> int:
    if total % processes:
        below, above = total - total % processes, total - total % processes + processes
        raise PlanError(
            f"train.train_batch_size {total} can't be shared by {processes} processes: {total} / "
            f"{processes} is not whole; the nearest that can: {f'{below} and ' if below else ''}{above}"
        )
    return total // processes


def _agreeing(total: int | None, micro: int, accumulation: int, processes: int) -> Batch:
    made = micro * accumulation * processes
    if total is not None and made != total:
        raise PlanError(
            f"train: per_device_train_batch_size {micro} x gradient_accumulation_steps {accumulation} x "
            f"{processes} processes = {made} rows, but train_batch_size is {total}; leave one "
            "of the three out, or auto"
        )
    return Batch(micro=micro, accumulation=accumulation, world=processes)


def _divided(rows: int, by: int, key: str, processes: int) -> int:
    if rows % by:
        nearest = max(d for d in range(1, min(by, rows) + 1) if rows % d == 0)
        raise PlanError(
            f"train.{key} {by} doesn't divide the {rows} rows of a device and step "
            f"({rows * processes} rows / {processes} processes); {nearest} does"
        )
    return rows // by


def _largest(rows: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `rows` that fits, 1 if none does: the caller reports what doesn't fit."""
    divisors = [d for d in range(rows, 0, -1) if rows % d == 0]
    return next((d for d in divisors if fits(d)), 1)
