"""What evaluation leaves in the run directory. Free of torch, so that reports can read it anywhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from tlscale.recipe.base import Frozen


class Outcome(Frozen):
    """How one example went.

    `nll` is a sum in nats over `tokens` scored tokens (of one class for classification); `prediction`
    and `reference` are label names or texts where there is an answer to compare. Of an item of a task,
    `values` has what each metric makes of it, `scores` the log-likelihood of each choice, and `tags` the
    groups it belongs to.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    item: int
    where: str
    tokens: int = 1
    nll: float | None = None
    prediction: str | None = None
    reference: str | None = None
    values: dict[str, float] | None = None
    # JSON has lists
    scores: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    tags: dict[str, str] | None = None

    @property
    def correct(self) -> bool:
        return self.prediction == self.reference


class Measurement(Frozen):
    """One metric of one arm on one suite.

    `arm` is `base` or `tuned`; `predictor` says how answers were obtained; `stderr` is the standard
    error over items, where the metric is a mean of items.
    """

    suite: str
    arm: str
    metric: str
    value: float
    stderr: float | None
    n: int
    predictor: str
    stage: str | None
    outcomes: str


# the value that counts an example's tokens whose most probable answer is right
RIGHT = "right"

# Metrics of all items together, which can't be taken apart and paired.
WHOLE = (
    *("auroc", "oos_recall", "ece", "ece_temperature", "stereotype_gap", "contaminated"),
    *("infomax", "entropy", "snd"),
)


def comparable(metric: str) -> bool:
    """Whether two models can be compared by `metric`, item by item."""
    return metric not in WHOLE and not metric.endswith("_clean")


HIGHER_IS_BETTER = {
    "accuracy": True,
    "f1_macro": True,
    "exact_match": True,
    "token_accuracy": True,
    "nll": False,
    "perplexity": False,
    "word_perplexity": False,
    "byte_perplexity": False,
    "bits_per_byte": False,
    "nll_temperature": False,
    "ece": False,
    "ece_temperature": False,
    "infomax": True,
    "entropy": False,
    "snd": True,
}
