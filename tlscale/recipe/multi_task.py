"""How several tasks that are learned at once share the steps and the weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tlscale.recipe.base import Frozen


class MultiTask(Frozen):
    """What is common to the tasks of data.train.tasks."""

    temperature: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="How often each task is drawn: by its number of rows to the power 1/temperature; 1 "
        "takes every row once an epoch, large values take all tasks equally often (Raffel et al. 2020).",
    )
    balance: Literal["rows", "tasks", "uncertainty", "pcgrad"] = Field(
        "rows",
        description="What is optimized: the mean loss of all rows (rows) or of each task (tasks), each "
        "task weighted by a learned uncertainty (uncertainty, Kendall et al. 2018), or each task's "
        "gradient without what conflicts with another's (pcgrad, Yu et al. 2020).",
    )
    uncertainty_rate: Annotated[float, Field(gt=0)] = Field(
        0.01, description="Learning rate of the uncertainties, where balance is uncertainty."
    )
    adapters: Literal["shared", "per_task", "both"] = Field(
        "shared",
        description="Whether all tasks train one LoRA adapter (shared), each its own (per_task), or each "
        "its own beside a shared one (both); own ones need strategy kind: peft with method: lora and head: "
        "pooled.",
    )
