"""From contrasts with controls to the word that they support. Pure.

A gain has to hold against every control (an intersection-union test, which needs no correction); harm
needs one control that is better, after Holm's correction over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlscale.report.types import Claim, Contrast, Word

if TYPE_CHECKING:
    from tlscale.evaluation.contrast import Contrasted

# Of fewer items, even all pointing one way could be chance: 2 / 2**5 is above 5 %.
FEWEST_ITEMS = 6


@dataclass(frozen=True)
class Margins:
    """What the recipe declared before the run: the difference that doesn't matter, the level."""

    margin: float
    level: float


def concluded(
    name: str,
    metric: str,
    contrasted: Sequence[tuple[str, Contrasted]],
    margins: Margins,
    p_holm: Sequence[float],
) -> tuple[Claim, tuple[str, ...]]:
    """The claim that contrasts with control arms support, against the best of them, and its reasons."""
    best, against = min(((c, arm) for arm, c in contrasted), key=lambda pair: pair[0].effect)
    word, reasons = decide([c for _, c in contrasted], p_holm, [arm for arm, _ in contrasted], margins)
    claim = Claim(
        name=name,
        metric=metric,
        word=word,
        effect=best.effect,
        low=best.low,
        high=best.high,
        level=margins.level,
        smallest_detectable=best.smallest_detectable,
        against=against,
        n_items=best.n_items,
        n_seeds=best.n_seeds,
        method=best.method,
        p_value=best.p_value,
        margin=margins.margin,
        contrasts=tuple(
            Contrast(against=arm, effect=c.effect, low=c.low, high=c.high, p_value=c.p_value, p_holm=p)
            for (arm, c), p in zip(contrasted, p_holm, strict=True)
        ),
    )
    return claim, tuple(f"{name}: {reason}" for reason in reasons)


def unmeasured(name: str, margins: Margins, why: str, metric: str | None = None) -> Claim:
    """The claim that was not put to the test; `why` is a sentence."""
    return Claim(
        name=name,
        metric=metric,
        word="NOT MEASURED",
        effect=None,
        low=None,
        high=None,
        level=margins.level,
        smallest_detectable=None,
        against=None,
        n_items=0,
        n_seeds=0,
        method=why,
        p_value=None,
        margin=margins.margin,
    )


def decide(
    contrasts: Sequence[Contrasted], p_holm: Sequence[float], names: Sequence[str], margins: Margins
) -> tuple[Word, tuple[str, ...]]:
    """The word for contrasts with each control, and sentences for what it doesn't say by itself.

    EQUIVALENT, where the margin allows it, goes before POSITIVE: a sure difference that was declared
    not to matter is no gain.
    """
    alpha = 1 - margins.level
    index = min(range(len(contrasts)), key=lambda at: contrasts[at].effect)
    best = contrasts[index]
    if best.n_items < FEWEST_ITEMS:
        return "INCONCLUSIVE", (f"{best.n_items} items are too few, at least {FEWEST_ITEMS} are needed.",)
    worse = [
        name
        for name, c, p in zip(names, contrasts, p_holm, strict=True)
        if c.high < 0 and p < alpha and c.p_margin >= alpha
    ]
    if worse:
        return "NEGATIVE", (f"significantly worse than {_listed(worse)}.",)
    if best.p_margin < alpha:
        sure = best.low > 0 or best.high < 0
        also = f"the difference from {names[index]} is not 0, but within the margin of {margins.margin:g}."
        return "EQUIVALENT", (also,) if sure else ()
    unbeaten = [
        name for name, c in zip(names, contrasts, strict=True) if not (c.low > 0 and c.p_value < alpha)
    ]
    if not unbeaten:
        return "POSITIVE", ()
    return "INCONCLUSIVE", _open(best, unbeaten, names[index], margins)


def _open(best: Contrasted, unbeaten: Sequence[str], against: str, margins: Margins) -> tuple[str, ...]:
    """Why neither gain nor harm nor equivalence could be shown."""
    reasons = []
    if best.high < 0:
        reasons.append(
            f"worse than {against}, but not significantly once the number of controls is corrected for."
        )
    elif against not in unbeaten:
        reasons.append(f"better than {against}, but that is not sure against {_listed(unbeaten)}.")
    elif best.low > 0:
        reasons.append(
            f"the interval against {against} excludes 0, the exact test does not (p = {best.p_value:.2g})."
        )
    reasons.append(
        f"so many items and seeds find a difference of {best.smallest_detectable:.2g} four times in five; "
        "a smaller one stays open."
    )
    return tuple(reasons)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
