"""Several tasks at once: what can't be meant with them, why, and what instead."""

from __future__ import annotations

from tlscale.planning.cases import Clash
from tlscale.recipe.multi_task import MultiTask

GOES_WITH_TASKS = ("task", "l2_sp", "kl_to_base", "rdrop")
ARMS = ("zero_shot", "features", "scratch")

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
)
