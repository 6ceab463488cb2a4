"""What doesn't go together with masked language models, and what becomes of a checkpoint's own head.

A part of the table of clashes.
"""

from __future__ import annotations

from tlscale.planning.cases import VIRTUAL_TOKENS, Case, Clash
from tlscale.planning.types import Facts

SHOWN = 3


def _adapter(case: Case) -> str | None:
    """The method of a stage's adapter over a masked language model."""
    fits = case.recipe.model.task == "masked-lm" and case.stage is not None
    return case.stage.adapter.peft_type if fits and case.stage and case.stage.adapter else None


CLASHES: tuple[Clash, ...] = (
    Clash(
        "data.masking",
        lambda c: c.recipe.data.masking is not None and c.recipe.model.task != "masked-lm",
        "only a masked language model has tokens hidden from it",
        "leave it out, or set model.task to masked-lm",
    ),
    Clash(
        "strategy",
        lambda c: _adapter(c) is not None and c.facts.head_is_new,
        "the base has no head for hidden tokens, and an adapter would train around a random one",
        "use strategy kind: full or partial, which train the new head, or give a masked language model",
    ),
    Clash(
        "strategy.method",
        lambda c: _adapter(c) in VIRTUAL_TOKENS,
        "PEFT knows virtual tokens before a masked language model only as features without a head",
        "use method: lora",
    ),
)


def heads(task: str, facts: Facts) -> list[str]:
    """What becomes of a head that the checkpoint has too much or too little."""
    if task == "masked-lm" and facts.head_is_new:
        return [
            "the checkpoint has no head for hidden tokens: a new one is trained, over the input embedding"
        ]
    if not facts.left_out:
        return []
    listed = ", ".join(name.removeprefix("head.") for name in facts.left_out[:SHOWN])
    more = f" and {len(facts.left_out) - SHOWN} more" if len(facts.left_out) > SHOWN else ""
    return [f"the checkpoint's own head is left out, {task} has no use for it: {listed}{more}"]
