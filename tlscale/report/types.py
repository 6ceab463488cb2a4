"""What a report concludes, as frozen values that travel as `verdict.json`. Free of torch.

Signs: an `effect` is an improvement, so that positive is better for every metric, also where the metric
itself is better when it is lower. Units are the metric's own: a share for accuracy, exact match and F1,
nats per token for nll.
"""

from __future__ import annotations

from typing import Literal

from tlscale.recipe.base import Frozen

Word = Literal["POSITIVE", "EQUIVALENT", "NEGATIVE", "INCONCLUSIVE", "NOT MEASURED"]
SUITES = ("target", "retention")

SEEDS_FOR_A_VERDICT = 5
CONTROLS = ("majority", "zero_shot", "tfidf", "class_mean", "features", "scratch")


class Contrast(Frozen):
    """The candidate against one control arm: the improvement, its interval and its p-values.

    `p_value` is two-sided; `p_holm` is the same after Holm's correction over the claim's contrasts.
    """

    against: str
    effect: float
    low: float
    high: float
    p_value: float
    p_holm: float


class Claim(Frozen):
    """One question to the run, and the word that the evidence supports.

    `name` is the suite: target, retention, or an evaluation task with its shots.
    `effect`, `low` and `high` are the improvement over the arm `against` and its interval at `level`;
    they, `smallest_detectable` and `p_value` are `None` where there was nothing to estimate them from.
    `smallest_detectable` is the effect that would have been found with 80 % power. `margin` is the
    largest difference that the recipe declared not to matter. `contrasts` has one entry for each
    control arm, that of the best arm among them.
    """

    name: str
    metric: str | None
    word: Word
    effect: float | None
    low: float | None
    high: float | None
    level: float
    smallest_detectable: float | None
    against: str | None
    n_items: int
    n_seeds: int
    method: str
    p_value: float | None
    margin: float
    contrasts: tuple[Contrast, ...] = ()


class ArmScore(Frozen):
    """One metric of one arm on one suite: the mean over seeds of its measured value.

    `stderr` is over items for one seed, and over seeds and items together for several; `None` where the
    metric has none.
    """

    arm: str
    suite: str
    metric: str
    value: float
    stderr: float | None
    n_seeds: int
    predictor: str


class Gate(Frozen):
    """Whether an adaptation to rows without labels is to be kept; no label of theirs plays a part.

    `effect` is what it adds to the information that calibrated answers carry on those rows, in nats, over
    the arm `against`, with its interval at `level`: keep where the interval lies above 0 and the effect
    above the `margin`, refuse where both lie as far below. `adapted` and `plain` are the two arms'
    own, means over seeds.
    """

    decision: Literal["keep", "refuse", "undecided"]
    effect: float
    low: float
    high: float
    level: float
    margin: float
    against: str
    adapted: float
    plain: float
    n_labelled: int
    n_unlabelled: int
    n_seeds: int


class Verdict(Frozen):
    """What came of a run, or of its repeats by seed.

    `word` is that of the target claim. `smoke` says that there were too few seeds for a verdict that
    would hold for another seed. `missing_arms` are the controls that fit the task and did not run.
    `cost` has `seconds` and `tokens` of training summed over seeds, `trainable` and `total` parameters,
    and `peak_memory_bytes` (`None` where it was not recorded). `reasons` are sentences. `fingerprints`
    has the plan of each run directory that was read, by its path relative to `run`. `gate` is there where
    rows without labels were adapted to, and the same training without them was an arm.
    """

    version: Literal[1] = 1
    run: str
    word: Word
    smoke: bool
    claims: tuple[Claim, ...]
    arms: tuple[ArmScore, ...]
    missing_arms: tuple[str, ...]
    cost: dict[str, float | None]
    reasons: tuple[str, ...]
    fingerprints: dict[str, str]
    gate: Gate | None = None

    def claim(self, name: str) -> Claim | None:
        """The claim of that name, if the run makes it."""
        return next((claim for claim in self.claims if claim.name == name), None)


class Comparison(Frozen):
    """Run `b` against run `a` on the items that both were scored on.

    Effects are improvements of `b` over `a`. `paired` and `unpaired` count items by suite. `gate` is there
    where both were scored on rows without labels: whether `b` is to be kept as an adaptation to them.
    """

    version: Literal[1] = 1
    a: str
    b: str
    smoke: bool
    claims: tuple[Claim, ...]
    arms: tuple[ArmScore, ...]
    paired: dict[str, int]
    unpaired: dict[str, int]
    reasons: tuple[str, ...]
    fingerprints: dict[str, str]
    gate: Gate | None = None
