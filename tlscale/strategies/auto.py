"""Left to `tlscale advise`: the strategy is settled by looking at the data, before anything is planned."""

from __future__ import annotations

from tlscale.errors import PlanError
from tlscale.planning.strategy import Context, Strategy
from tlscale.planning.types import Stage
from tlscale.recipe.base import Frozen


class Options(Frozen):
    """What is chosen has options; the choice has none."""


def compile_auto(options: Options, context: Context) -> tuple[Stage, ...]:
    raise PlanError(
        "strategy.kind: auto: nothing is chosen yet; `tlscale run RECIPE` looks at the data and chooses, "
        "and `tlscale advise RECIPE` says what and why"
    )


STRATEGY = Strategy(
    "auto",
    "Chosen by looking at the data, as `tlscale advise` says.",
    Options,
    compile_auto,
    variants=lambda: (),
)
