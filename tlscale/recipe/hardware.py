"""What a recipe may say about the machines that it is for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tlscale.recipe.base import Frozen, Positive

Offload = Literal["none", "optimizer", "parameters"]


class Hardware(Frozen):
    """The machines the plan is for."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
    processes: Positive = Field(1, description="Processes over all machines, one per device.")
    machines: Positive = Field(1, description="Machines that share the processes evenly.")
    memory_per_device: Annotated[float, Field(gt=0)] | None = Field(
        None, description="GB of each device; by default what this machine has."
    )
    sharding: Literal["auto", "none", "fsdp2", "zero1", "zero2", "zero3"] = Field(
        "auto",
        description="What processes share out: nothing (none), optimizer states (zero1), gradients too "
        "(zero2), weights too (zero3, or fsdp2 without DeepSpeed); auto: as little as fits.",
    )
    offload: Offload = Field(
        "none",
        description="What waits in the host's memory between uses; parameters include the optimizer.",
    )
    rendezvous_timeout: Positive = Field(
        300, description="Seconds that machines wait for each other at the start."
    )
