"""Averages of weights, mixing with the start, curricula and weights of rows: where they can't be meant.

A part of the table of clashes.
"""

from __future__ import annotations

from tlscale.planning.cases import Case, Clash
from tlscale.recipe.types import CLASSIFICATION

NO_ANSWERS = ("sentence-embedding", "masked-lm")
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


def _orders(case: Case, by: str = "") -> bool:
    asked = None if case.stage is None else case.stage.curriculum
    return asked is not None and by in ("", asked.by)


def _weighs(case: Case, kind: str = "") -> bool:
    asked = None if case.stage is None else case.stage.importance
    return asked is not None and kind in ("", asked.kind)


def _streams(case: Case) -> bool:
    return case.recipe.data.train is not None and case.recipe.data.train.streaming


def _has_new_head(case: Case) -> bool:
    return (
        case.stage is not None
        and case.stage.starts_from == "base"
        and (case.pooled or case.facts.head_is_new)
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
    Clash(
        "train.curriculum",
        lambda c: _orders(c) and (_streams(c) or c.recipe.data.packing),
        "a stream's rows and packed ones have no difficulty that is known beforehand",
        "leave data.train.streaming and data.packing out",
    ),
    Clash(
        "train.curriculum",
        lambda c: (
            _orders(c)
            and c.stage is not None
            and (
                c.stage.group_by_length or (c.stage.tasks is not None and c.stage.tasks.temperature != 1.0)
            )
        ),
        "train.group_by_length and train.multi_task.temperature order or draw the rows in another way",
        "leave them out",
    ),
    Clash(
        "train.curriculum.by",
        lambda c: _orders(c, "length") and c.recipe.model.task == "image-classification",
        "images have no length",
        "use by: loss or by: column",
    ),
    Clash(
        "train.curriculum.by",
        lambda c: _orders(c, "loss") and (_has_new_head(c) or c.recipe.model.task in NO_ANSWERS),
        "what the base finds hard can't be told: its head is new, or it answers nothing of a whole row",
        "use by: length or by: column, or order a later stage",
    ),
    Clash(
        "train.curriculum.by",
        lambda c: (
            _orders(c, "column")
            and c.recipe.data.train is not None
            and c.recipe.data.train.tasks is not None
        ),
        "rows of several tasks come with their text and label alone",
        "use by: length or by: loss",
    ),
    Clash(
        "train.importance",
        lambda c: _weighs(c) and (c.recipe.model.task not in CLASSIFICATION or _streams(c)),
        "rows are weighted for a classifier, and all of them must be there",
        "leave it out, or continue pretraining on the target's rows",
    ),
    Clash(
        "train.importance",
        lambda c: (
            _weighs(c)
            and c.stage is not None
            and (c.stage.tasks is not None or c.stage.objective[0].name != "task")
        ),
        "only the loss of a single task's own rows is weighted",
        "set it in the train of the stage that learns the task",
    ),
    Clash(
        "train.importance",
        lambda c: _weighs(c) and c.recipe.data.unlabelled is None,
        "weights are for the domain of unlabelled rows",
        "give data.unlabelled",
    ),
    Clash(
        "train.importance",
        lambda c: (
            _weighs(c, "label_shift")
            and c.recipe.data.validation is None
            and not c.recipe.data.validation_split
        ),
        "how often a class is taken for another is counted on rows that aren't trained on",
        "give data.validation or data.validation_split",
    ),
)
