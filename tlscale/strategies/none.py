"""No training: the base as it is, scored zero-shot. The control that every transfer has to beat."""

from __future__ import annotations

from tlscale.planning.strategy import Context, Strategy
from tlscale.planning.types import Stage
from tlscale.recipe.base import Frozen


class Options(Frozen):
    """Doing nothing has no options."""


def compile_none(options: Options, context: Context) -> tuple[Stage, ...]:
    return ()


STRATEGY = Strategy("none", "No training; the base is scored as it is.", Options, compile_none)
