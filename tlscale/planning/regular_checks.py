"""Averages of weights and mixing with the start: where they can't be meant, and what does the same there.

A part of the table of clashes.
"""

from __future__ import annotations

from tlscale.planning.cases import Case, Clash

# methods whose numbers act on the model by themselves; the average of factors is not that of products
OF_ONE_FACTOR = ("IA3", "LN_TUNING", "PROMPT_TUNING", "FOURIERFT")


def _averages_factors(case: Case) -> bool:
    stage = case.stage
    return (
        stage is not None
        and stage.averaging is not None
        and stage.adapter is not None
        and stage.adapter.peft_type not in OF_ONE_FACTOR
    )


def _mixes(case: Case) -> bool:
    return case.stage is not None and bool(case.stage.mixout)


CLASHES: tuple[Clash, ...] = (
    Clash(
        "train.averaging",
        _averages_factors,
        "the method's weights are factors, and the mean of A times the mean of B is not the mean of BA",
        "use strategy kind: full or partial, or average finished runs by what they change: tlscale soup "
        "RUN_A RUN_B -o FOLDER --method mean",
    ),
    Clash(
        "train.averaging",
        lambda c: c.stage is not None and c.stage.averaging is not None and c.world.shards_weights,
        "no process has whole weights to keep an average of",
        "set hardware.sharding to none, zero1 or zero2",
    ),
    Clash(
        "train.mixout",
        lambda c: _mixes(c) and c.stage is not None and c.stage.adapter is not None,
        "an adapter begins as no change at all, so there is nothing of its own to mix with",
        "set strategy.lora_dropout, or use strategy kind: full or partial",
    ),
    Clash(
        "train.mixout",
        lambda c: _mixes(c) and c.recipe.model.init == "scratch",
        "it keeps weights near where they began, and these begin random",
        "leave it out",
    ),
    Clash(
        "train.mixout",
        lambda c: _mixes(c) and not c.moves_backbone and (c.pooled or c.facts.head_is_new),
        "only a new head trains, which has no start to be mixed with",
        "use strategy kind: full or partial, or leave it out",
    ),
    Clash(
        "train.mixout",
        lambda c: (
            _mixes(c)
            and c.stage is not None
            and any(term.name in ("l2_sp", "ewc") for term in c.stage.objective)
        ),
        "l2_sp and ewc would measure how far the mixed weights are, and both keep weights near their start",
        "use one of them",
    ),
    Clash(
        "train.mixout",
        lambda c: _mixes(c) and c.world.sharding != "none",
        "every process needs the whole weights and gradients, and some are shared out",
        "set hardware.sharding to none, or use train.objective.kl_to_base",
    ),
)
