"""The seeds of a run taken together: their mean probability and their vote, from stored outcomes alone.

Lakshminarayanan et al. 2017 (arXiv:1612.01474). Outcomes have the probability of the right class and the
answer, not the whole distribution: so the mean probability, and with it the nll, is exact, and the answer
is that of most members (of the first among equals).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tlscale.evaluation.metrics import METRICS
from tlscale.evaluation.types import Outcome
from tlscale.recipe.types import CLASSIFICATION
from tlscale.report.evidence import Evidence
from tlscale.report.types import ArmScore

CANDIDATE, ARM = "tuned", "ensemble"
FEWEST = 2
Items = Mapping[tuple[str, int], Outcome]


def ensemble_scores(evidence: Evidence) -> tuple[ArmScore, ...]:
    """The scores of a classifier's seeds together on the target items; none for a single seed."""
    members = list(evidence.arms.get(CANDIDATE, {}).values())
    if len(members) < FEWEST or evidence.seeds[0].plan.recipe.model.task not in CLASSIFICATION:
        return ()
    metrics = [metric for suite, metric in members[0].measured if suite == "target" and metric in METRICS]
    joined = together([member.outcomes("target") for member in members]) if metrics else ()
    found = []
    for metric in metrics if joined else ():
        value, stderr = METRICS[metric](joined)
        found.append(
            ArmScore(
                arm=ARM, suite="target", metric=metric, value=value, stderr=stderr, n_seeds=len(members),
                predictor=f"vote and mean probability of {len(members)} seeds",
            )
        )  # fmt: skip
    return tuple(found)


def together(members: Sequence[Items]) -> tuple[Outcome, ...]:
    """One outcome for each item that every member has answered."""
    shared = [key for key in members[0] if all(key in other for other in members[1:])]
    return tuple(_joined([member[key] for member in members]) for key in shared)


def _joined(answers: Sequence[Outcome]) -> Outcome:
    votes = Counter(one.prediction for one in answers)
    most = max(votes.values())
    answer = next(one.prediction for one in answers if votes[one.prediction] == most)
    losses = [one.nll for one in answers if one.nll is not None]
    nll = None
    if len(losses) == len(answers):
        lowest = min(losses)
        share = sum(math.exp(lowest - loss) for loss in losses) / len(losses)
        nll = lowest - math.log(share)
    return answers[0].model_copy(update={"prediction": answer, "nll": nll})
