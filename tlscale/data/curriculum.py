"""Easy examples first: an epoch's order in which harder ones become available little by little.

Bengio et al. 2009 order examples by a stated difficulty; Hacohen and Weinshall 2019 (arXiv:1904.03626) draw
each batch from the easiest share, which a pacing function lets grow. Here rows aren't put back, and the
share is never less than what was taken: every example comes exactly once an epoch.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from tlscale.recipe.train import Curriculum


def available(asked: Curriculum, place: float) -> float:
    """The share of the rows, easiest first, that may come at `place` of an epoch, from 0 to 1.

    Linear and square-root growth are those of Platanios et al. 2019 (arXiv:1903.09848).
    """
    done = min(1.0, place / asked.until)
    if asked.pacing == "linear":
        return asked.start + (1 - asked.start) * done
    return math.sqrt(asked.start**2 + (1 - asked.start**2) * done)


def paced(order: Sequence[int], difficulty: Sequence[float], asked: Curriculum, *, total: int) -> list[int]:
    """`order` with what is too hard for now put off: for each step the first `total` that are available.

    Args:
        order: Every index once, as they would come; it decides among rows that are available.
        difficulty: By index; of equally difficult ones, those earlier in `order` are the easier.
        asked: What is available when.
        total: Rows a step.
    """
    sign = -1.0 if asked.hardest_first else 1.0
    places = {index: place for place, index in enumerate(order)}
    by_ease = sorted(order, key=lambda index: sign * difficulty[index])
    waiting: list[int] = []
    taken: list[int] = []
    opened = 0
    while len(taken) < len(order):
        share = math.ceil(available(asked, len(taken) / len(order)) * len(order))
        wanted = min(len(order), max(share, len(taken) + total))
        for index in by_ease[opened:wanted]:
            heapq.heappush(waiting, places[index])
        opened = max(opened, wanted)
        taken += [order[heapq.heappop(waiting)] for _ in range(min(total, len(waiting)))]
    return taken
