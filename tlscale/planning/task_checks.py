"""Several tasks at once: what can't be meant with them, why, and what instead."""

from __future__ import annotations

from tlscale.planning.cases import Case, Clash
from tlscale.planning.fusion import FUSION
from tlscale.recipe.multi_task import MultiTask

GOES_WITH_TASKS = ("task", "l2_sp", "kl_to_base", "rdrop")
PLAIN_LORA = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "exclude_modules")
ARMS = ("zero_shot", "features", "scratch")


def _own_adapters(case: Case) -> bool:
    return case.stage is not None and case.stage.tasks is not None and bool(case.stage.tasks.adapter_names)


def _several(case: Case) -> bool:
    """Whether the stage's model has several adapters, for its tasks or to combine."""
    adapter = case.stage.adapter if case.stage is not None else None
    return _own_adapters(case) or (adapter is not None and adapter.peft_type == FUSION)


def _plain_lora(case: Case) -> bool:
    """Whether the stage trains a LoRA that changes nothing but the outputs of linear layers."""
    adapter = case.stage.adapter if case.stage is not None else None
    return adapter is not None and adapter.peft_type == "LORA" and set(adapter.fields) <= set(PLAIN_LORA)


CLASHES: tuple[Clash, ...] = (
    Clash(
        "data.train.tasks",
        lambda c: (
            c.recipe.data.train is not None
            and c.recipe.data.train.tasks is not None
            and c.recipe.model.task != "sequence-classification"
        ),
        "each task is a set of classes of texts",
        "set model.task to sequence-classification, or mix the rows in one file",
    ),
    Clash(
        "data.test",
        lambda c: (
            c.recipe.data.train is not None
            and any(
                other is not None and (other.tasks is None) != (c.recipe.data.train.tasks is None)
                for other in (c.recipe.data.test, c.recipe.data.validation)
            )
        ),
        "rows to train on and rows to judge by must be of the same tasks",
        "give data.train, data.validation and data.test all with tasks, or none",
    ),
    Clash(
        "train.multi_task",
        lambda c: (
            c.stage is not None and c.stage.tasks is None and c.recipe.train.multi_task != MultiTask()
        ),
        "there is one task",
        "give the tasks in data.train.tasks, or leave train.multi_task out",
    ),
    Clash(
        "train.objective",
        lambda c: (
            c.stage is not None
            and c.stage.tasks is not None
            and any(term.name not in GOES_WITH_TASKS for term in c.stage.objective)
        ),
        "only l2_sp, kl_to_base and rdrop know of several tasks",
        "use one of these, or train on one task",
    ),
    Clash(
        "evaluate.against",
        lambda c: (
            c.stage is not None
            and c.stage.tasks is not None
            and any(arm not in ARMS for arm in c.recipe.evaluate.against)
        ),
        "the arm would answer with classes of other tasks",
        f"choose among {', '.join(ARMS)}, or judge one task",
    ),
    Clash(
        "train.multi_task.balance",
        lambda c: (
            c.stage is not None
            and c.stage.tasks is not None
            and c.stage.tasks.balance == "pcgrad"
            and (c.world.backend not in ("single", "ddp") or c.world.dtype == "float16")
        ),
        "pcgrad needs whole gradients on every process, and no loss scaling",
        "set hardware.sharding to none and model.dtype to float32 or bfloat16, or use uncertainty",
    ),
    Clash(
        "train.multi_task.balance",
        lambda c: (
            c.stage is not None
            and c.stage.tasks is not None
            and c.stage.tasks.balance == "uncertainty"
            and c.world.dtype == "float16"
        ),
        "the learned uncertainties don't know of float16's loss scaling",
        "use bfloat16 or float32, or use tasks or pcgrad",
    ),
    Clash(
        "train.multi_task.adapters",
        lambda c: _own_adapters(c) and not (_plain_lora(c) and c.pooled),
        "tasks have adapters of their own as plain LoRA under a head of ours",
        "use strategy kind: peft, method: lora and head: pooled with no other fields than "
        f"{', '.join(PLAIN_LORA)}, or adapters: shared",
    ),
    Clash(
        "hardware.sharding",
        lambda c: _several(c) and c.world.backend not in ("single", "ddp"),
        "several adapters in one model need whole weights on every process",
        "set hardware.sharding to none, or train one adapter",
    ),
    Clash(
        "stages",
        lambda c: (
            _several(c)
            and c.stage is not None
            and bool(c.recipe.stages)
            and c.recipe.stages[-1].name != c.stage.name
        ),
        "a later stage can't stand on several adapters: they can't all be added to one base",
        "make it the last stage, or train one adapter in it",
    ),
    Clash(
        "train.objective.l2_sp",
        lambda c: (
            _own_adapters(c) and c.stage is not None and any(t.name == "l2_sp" for t in c.stage.objective)
        ),
        "each task has a change of weights of its own",
        "leave l2_sp out, or set train.multi_task.adapters to shared",
    ),
)
