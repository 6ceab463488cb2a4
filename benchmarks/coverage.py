"""How often the intervals of `tlscale compare` hold the truth, by simulation.

    python benchmarks/coverage.py [--times N]

Two models answer the same items of a task, with a true difference that is known; the interval of 95 % of
their comparison either holds it or doesn't. Drawn are items that are right or wrong, items with a value
(such as the probability of all right answers), and log-likelihoods per token and per word; one run each,
as evaluations of tasks are. Exits with 1 where the share is not between 93 and 97 %.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LOW, HIGH = 0.93, 0.97
DRAWS = 1000
# The nats per token of the better and of the other model.
RATES = (0.30, 0.35)

Random = np.random.Generator
Side = list[dict[str, float]]


@dataclass(frozen=True)
class Case:
    """A metric on so many items, its true improvement, and how the answers of two models are drawn."""

    name: str
    metric: str
    items: int
    truth: float
    draw: Callable[[Random, int], tuple[Side, Side]]


def right_or_wrong(better: float, worse: float) -> Callable[[Random, int], tuple[Side, Side]]:
    """Items that only the first model, or only the second, gets right with these probabilities."""

    def draw(random: Random, items: int) -> tuple[Side, Side]:
        which = random.choice(3, size=items, p=[better, worse, 1 - better - worse])
        both = random.random(items) < 0.5
        sides = [np.where(which == own, 1.0, np.where(which == 1 - own, 0.0, both)) for own in (0, 1)]
        one, other = ([{"acc": float(value)} for value in side] for side in sides)
        return one, other

    return draw


def valued(random: Random, items: int) -> tuple[Side, Side]:
    """Values of 0 to 1 whose spread lies in the items for the most part."""
    own = random.beta(2, 3, items)
    one, other = ([{"mc2": float(v)} for v in own + random.normal(m, 0.1, items)] for m in (0.03, 0.0))
    return one, other


def likelihoods(random: Random, items: int) -> tuple[Side, Side]:
    """Texts of 5 to 60 tokens, each harder or easier for both models."""
    tokens = random.integers(5, 61, items)
    hard = np.sqrt(tokens) * random.normal(0, 0.5, items)
    sides = [rate * tokens + hard + np.sqrt(tokens) * random.normal(0, 0.3, items) for rate in RATES]
    one, other = (
        [{"nll": float(v), "words": float(n)} for v, n in zip(side, tokens, strict=True)] for side in sides
    )
    return one, other


CASES = (
    Case("right or wrong, 12 % better and 8 % worse", "acc", 200, 0.04, right_or_wrong(0.12, 0.08)),
    Case("right or wrong, no difference", "acc", 500, 0.0, right_or_wrong(0.05, 0.05)),
    Case("values, such as those of MC2", "mc2", 200, 0.03, valued),
    Case("nats per token", "nll", 200, RATES[1] - RATES[0], likelihoods),
    Case("perplexity per word", "word_perplexity", 200, math.exp(0.35) - math.exp(0.30), likelihoods),
)


def covered(case: Case, times: int) -> float:
    """The share of `times` intervals that hold the truth."""
    from tlscale.evaluation.contrast import contrast
    from tlscale.evaluation.types import Outcome

    def outcomes(side: Side) -> list[Outcome]:
        return [
            Outcome(item=at, where=str(at), nll=v.get("nll"), tokens=int(v.get("words", 1)), values=v)
            for at, v in enumerate(side)
        ]

    random = np.random.default_rng(0)
    inside = 0
    for seed in range(times):
        one, other = (outcomes(side) for side in case.draw(random, case.items))
        found = contrast([one], [other], case.metric, seed=seed, draws=DRAWS)
        inside += found.low <= case.truth <= found.high
    return inside / times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--times", type=int, default=1000, help="comparisons of each kind")
    asked = parser.parse_args()
    met = True
    print(f"{'drawn':<44}{'metric':<18}items    held")
    for case in CASES:
        share = covered(case, asked.times)
        met = met and LOW <= share <= HIGH
        print(f"{case.name:<44}{case.metric:<18}{case.items:>5}{share:>8.1%}", flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
