"""Twelve ways from one kind of product to another: what the A-distance foretells, and what the gate flags.

    TLSCALE_DATA=FOLDER python benchmarks/domains.py

Reviews of books, films, electronics and kitchenware (Blitzer et al. 2007) by features of a frozen MiniLM,
those of configs/proofs/amazon.yaml. The published `test` is the whole domain and holds train and dev:
heads are trained on the source's train, calibrated on its dev, and the target gives test alone. Its
labels only grade.

1. The proxy A-distance of the features against the drop of a linear head from the source, by five folds, to
   the target.
2. CORAL in closed form under a linear head; CORAL, at two weights, and MCC under a head with a hidden
   layer: the change in target accuracy, which nobody would know, and what the gate says of it.
3. The gate where labels are shuffled: nothing can be learned, so whatever it says but `undecided` is false.

Heads, terms, distances and gate are the project's own; only the loop around them is this file's, since
whole runs would read the same texts some hundred times. Results: benchmarks/results/proof-amazon-pairs.md.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from amazon_features import Domain, Floats, Ints, domain, scaled
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from tlscale.engine.terms.aligning import coral, mcc
from tlscale.evaluation.gate import Answers, Gain, information_gain
from tlscale.evaluation.types import Outcome
from tlscale.models.heads import PooledHead
from tlscale.probes.arrays import Linear, held_out_predictions
from tlscale.probes.shift import proxy_a_distance

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "proof-amazon-pairs.md"
DOMAINS = ("books", "dvd", "electronics", "kitchen")
ARMS = (("coral", 1.0), ("coral", 100.0), ("mcc", 1.0))
CLASSES = ("0", "1")
SHUFFLES = 3
TEMPERATURE = 2.5


def trained(x: Tensor, y: Tensor, other: Tensor, term: str, weight: float) -> PooledHead:
    """A head with a hidden layer and a term on the rows of `other`: linear decay, else as in the recipe."""
    torch.manual_seed(0)
    head = PooledHead(x.shape[1], len(CLASSES), 128)
    nn.init.zeros_(head.output.weight)
    nn.init.zeros_(head.output.bias)
    steps = 20 * math.ceil(len(x) / 64)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        order = torch.randperm(len(x), generator=generator)
        for rows in order.split(64):
            hidden = head.before(x[rows])
            loss = functional.cross_entropy(head.output(hidden), y[rows])
            if weight:
                met = head.before(other[torch.randint(len(other), (64,), generator=generator)])
                extra = coral(hidden, met) if term == "coral" else mcc(head.output(met), TEMPERATURE)
                loss = loss + weight * extra
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return head.eval()


@torch.no_grad()
def outcomes(head: PooledHead, x: Tensor, y: Ints | None) -> list[Outcome]:
    """What a head answers; without `y` nothing of the right answers is in it."""
    return _outcomes(head(x).log_softmax(dim=-1).numpy(), y)


def _outcomes(scores: Floats, y: Ints | None) -> list[Outcome]:
    return [
        Outcome(
            item=i, where=f"row {i}", scores=tuple(row), prediction=CLASSES[row[1] > row[0]],
            reference=None if y is None else CLASSES[y[i]],
        )
        for i, row in enumerate(scores.tolist())
    ]  # fmt: skip


def right(answers: list[Outcome], labels: Ints) -> float:
    """Accuracy in per cent."""
    return 100 * float(
        np.mean([int(one.prediction or "") == y for one, y in zip(answers, labels, strict=True)])
    )


@dataclass(frozen=True)
class Judged:
    """One adaptation: what it changed on the target, in points, and what the gate said."""

    arm: str
    plain: float
    adapted: float
    gain: Gain


def unadapted(source: Domain, labels: Ints) -> PooledHead:
    """The head that knows nothing of a target."""
    x = scaled(source.features)
    return trained(x[source.train], torch.tensor(labels)[source.train], x, "", 0.0)


def pair(
    source: Domain, target: Domain, labels: Ints, without: PooledHead, arms: tuple[tuple[str, float], ...]
) -> list[Judged]:
    """The arms of one pair, with `labels` for the source's rows, against the head `without` adapting."""
    x, other = scaled(source.features), scaled(target.features)
    y = torch.tensor(labels)

    def answers(head: PooledHead) -> tuple[Answers, float]:
        met = outcomes(head, other, None)
        known = outcomes(head, x[source.dev], labels[source.dev])
        return Answers([known], [met]), right(met, target.labels)

    plain, before = answers(without)
    found = []
    for term, weight in arms:
        adapted, after = answers(trained(x[source.train], y[source.train], other, term, weight))
        gain = information_gain(adapted, plain, CLASSES)
        found.append(Judged(f"{term} {weight:g}", before, after, gain))
    return found


def distances(domains: dict[str, Domain]) -> Iterator[str]:
    """A-distance and drop of every pair, as a table, and how well their ranks agree."""
    yield "| from | to | A-distance | source | target | drop |"
    yield "|---|---|---:|---:|---:|---:|"
    home = {name: _at_home(one) for name, one in domains.items()}
    apart, lost, of_both = [], [], []
    for one, other in permutations(DOMAINS, 2):
        source, target = domains[one], domains[other]
        linear = Linear(source.features[source.train], source.labels[source.train], 2)
        away = 100 * float((linear.predict(target.features) == target.labels).mean())
        apart.append(proxy_a_distance(source.features, target.features, seed=0))
        lost.append(home[one] - away)
        of_both.append((home[one] + home[other]) / 2 - away)
        yield f"| {one} | {other} | {apart[-1]:.3f} | {home[one]:.2f} | {away:.2f} | {lost[-1]:.2f} |"
    yield f"\nSpearman's rho of A-distance and drop over {len(lost)} pairs: {_rho(apart, lost):.3f}"
    yield (
        "Looked at afterwards, since the distance is the same both ways and the drop holds how hard each "
        "domain is by itself: of the drop from the mean of both domains' own accuracy, "
        f"{_rho(apart, of_both):.3f}"
    )


def _at_home(one: Domain) -> float:
    """The accuracy of a linear head on its own domain by five folds, in per cent."""
    guessed = held_out_predictions(one.features, one.labels, 2, parts=5, seed=0)
    return 100 * float((guessed == one.labels).mean())


def _rho(one: Sequence[float], other: Sequence[float]) -> float:
    return float(spearmanr(one, other).statistic)


def aligned(source: Floats, target: Floats) -> Floats:
    """Source features given the target's covariance (Sun et al. 2016, arXiv:1511.05547, algorithm 1)."""

    def power(rows: Floats, exponent: float) -> Floats:
        values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False) + np.eye(rows.shape[1]))
        raised: Floats = (vectors * values**exponent) @ vectors.T
        return raised

    return source @ power(source, -0.5) @ power(target, 0.5)


def closed_form(source: Domain, target: Domain) -> Judged:
    """A linear head on aligned features against one on the features as they are."""
    x, met = (scaled(one.features).numpy().astype(np.float64) for one in (source, target))

    def answers(rows: Floats) -> tuple[Answers, float]:
        head = Linear(rows[source.train], source.labels[source.train], 2)
        unknown = _outcomes(np.log(head.probabilities(met)), None)
        known = _outcomes(np.log(head.probabilities(rows[source.dev])), source.labels[source.dev])
        return Answers([known], [unknown]), right(unknown, target.labels)

    (plain, before), (adapted, after) = answers(x), answers(aligned(x, met))
    return Judged("coral, closed form", before, after, information_gain(adapted, plain, CLASSES))


def graded(domains: dict[str, Domain]) -> Iterator[str]:
    """Every adaptation with the gate's word, and how often it is right, by arm."""
    yield "| from | to | arm | plain | adapted | change | gate | information, nats |"
    yield "|---|---|---|---:|---:|---:|---|---|"
    judged: dict[str, list[Judged]] = {}
    without = {name: unadapted(one, one.labels) for name, one in domains.items()}
    for one, other in permutations(DOMAINS, 2):
        source, target = domains[one], domains[other]
        for found in (
            closed_form(source, target),
            *pair(source, target, source.labels, without[one], ARMS),
        ):
            judged.setdefault(found.arm, []).append(found)
            i, change = found.gain.interval, found.adapted - found.plain
            yield (
                f"| {one} | {other} | {found.arm} | {found.plain:.2f} | {found.adapted:.2f} | "
                f"{change:+.2f} | {found.gain.decision} | {i.effect:+.4f} [{i.low:+.4f}, {i.high:+.4f}] |"
            )
    yield ""
    for arm, every in judged.items():
        hurt = [one for one in every if one.adapted < one.plain]
        others = [one for one in every if one.adapted >= one.plain]
        means = [np.mean([getattr(one, side) for one in every]) for side in ("plain", "adapted")]
        yield (
            f"{arm}: mean {means[0]:.2f} -> {means[1]:.2f}; hurts {len(hurt)} of {len(every)}: "
            f"{_said(hurt)}; of the others: {_said(others)}"
        )


def _said(judged: list[Judged]) -> str:
    words = [one.gain.decision for one in judged]
    return ", ".join(f"{words.count(word)} {word}" for word in ("keep", "undecided", "refuse"))


def shuffled(domains: dict[str, Domain]) -> Iterator[str]:
    """What the gate says where source labels are shuffled."""
    random = np.random.default_rng(0)
    said: list[Judged] = []
    for one in DOMAINS:
        for _ in range(SHUFFLES):
            labels = random.permutation(domains[one].labels)
            without = unadapted(domains[one], labels)
            for other in DOMAINS:
                if other != one:
                    said += pair(domains[one], domains[other], labels, without, ARMS[:1])
    wrong = sum(one.gain.decision != "undecided" for one in said)
    yield f"Shuffled labels: {_said(said)}; false alarms {wrong} of {len(said)} ({wrong / len(said):.1%})"


def main() -> int:
    data = Path(os.environ["TLSCALE_DATA"])
    domains = {name: domain(data, name) for name in DOMAINS}
    lines = ["# amazon: twelve pairs\n\n    python benchmarks/domains.py\n"]
    for part in (distances, graded, shuffled):
        for line in part(domains):
            print(line, flush=True)
            lines.append(line)
        lines.append("")
    RESULT.write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
