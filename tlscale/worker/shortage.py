"""When memory runs out in training: where the bytes went, and the smallest change that fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tlscale.errors import DoesNotFitError
from tlscale.planning.remedy import account, smallest_change
from tlscale.planning.types import Plan, PlannedStage

# of torch's allocator for the host's memory, which has no error class of its own
WORDS = ("can't allocate memory", "not enough memory")


@contextmanager
def explained(plan: Plan, planned: PlannedStage) -> Iterator[None]:
    """Turns a device's or the host's shortage of memory inside into the plan's account of it.

    Raises:
        DoesNotFitError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_shortage(error):
            raise
        change = smallest_change(plan, happened=True)
        advice = (
            f"the smallest change that should fit: {change}"
            if change
            else "no single change is enough: take a smaller model, shorter rows or more devices"
        )
        raise DoesNotFitError(
            f"stage {planned.stage.name}: memory ran out ({str(error).splitlines()[0][:200]}); the plan's "
            f"estimate for each device was {account(planned)}; {advice}"
        ) from error


def _is_shortage(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(w in str(error) for w in WORDS)
