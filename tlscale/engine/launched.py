"""What `accelerate launch` and its config file ask for, read from the environment that it hands on.

The plan decides how processes train together. A launcher that asks for something else is contradicted
aloud, and one that asks for the same may add what the plan leaves open: DeepSpeed's bucket sizes, say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlscale.errors import PlanError
from tlscale.planning.types import World

STAGES = {1: "zero1", 2: "zero2", 3: "zero3"}
# sections that a recipe has its own words for
DECIDED = ("optimizer", "scheduler", "fp16", "bf16")


@dataclass(frozen=True)
class Launched:
    """Processes and machines, and the sharding that the launcher was told of, if any."""

    processes: int = 1
    machines: int = 1
    sharding: str | None = None
    offload: str = "none"
    deepspeed: Mapping[str, Any] = field(default_factory=dict)


def read(environment: Mapping[str, str]) -> Launched:
    """What the launcher of this process was told.

    Raises:
        PlanError: it was told of something that is not supported, or its DeepSpeed file can't be read.
    """
    processes = int(environment.get("WORLD_SIZE", "1"))
    here = int(environment.get("LOCAL_WORLD_SIZE", str(processes)))
    machines = int(environment.get("GROUP_WORLD_SIZE", str(max(1, processes // max(1, here)))))
    if environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        return _deepspeed(environment, processes, machines)
    if environment.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        version = environment.get("FSDP_VERSION", "1")
        if version != "2":
            raise PlanError(
                f"accelerate launch: fsdp_version {version} is not supported; set fsdp_version: 2 in its "
                "config file (--fsdp_version 2)"
            )
        offloads = environment.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
        return Launched(processes, machines, "fsdp2", "parameters" if offloads else "none")
    return Launched(processes, machines)


def _deepspeed(environment: Mapping[str, str], processes: int, machines: int) -> Launched:
    name = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "")
    written = _file(Path(name)) if name and name != "none" else {}
    sharing = written.get("zero_optimization", {})
    stage = sharing.get("stage", environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
    if str(stage) not in map(str, STAGES):
        raise PlanError(
            f"accelerate launch: DeepSpeed's ZeRO stage {stage} is not supported; allowed: 1, 2, 3, or "
            "leave DeepSpeed out of its config file"
        )

    def waits(what: str) -> bool:
        key = f"ACCELERATE_DEEPSPEED_OFFLOAD_{what.upper()}_DEVICE"
        device = sharing.get(f"offload_{what}", {}).get("device", environment.get(key, "none"))
        if device not in ("none", "cpu"):
            raise PlanError(f"accelerate launch: offload to {device} is not supported; allowed: none, cpu")
        return bool(device == "cpu")

    offload = "parameters" if waits("param") else "optimizer" if waits("optimizer") else "none"
    for section in DECIDED:
        if written.get(section) not in (None, {}, "auto") and written[section].get("enabled") is not False:
            raise PlanError(f"{name}: {section}: the recipe decides on this; leave the section out")
    return Launched(processes, machines, STAGES[int(stage)], offload, written)


def _file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: DeepSpeed's configuration can't be read: {error}") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path}: DeepSpeed's configuration must be one JSON object")
    return content


def contradiction(asked: Launched, world: World) -> str | None:
    """How the launcher contradicts the plan, and what to do; `None` where it doesn't."""
    if asked.processes != world.processes:
        return (
            f"the plan is for {world.processes} process(es), but {asked.processes} were launched; launch "
            f"as many as planned, or plan anew with hardware.processes={asked.processes}"
        )
    if world.machines > 1 and asked.machines != world.machines:
        return (
            f"the plan is for {world.machines} machines, but {asked.machines} were launched; launch on "
            f"as many as planned, or plan anew with hardware.machines={asked.machines}"
        )
    if asked.sharding is not None and (asked.sharding, asked.offload) != (world.sharding, world.offload):
        return (
            f"the plan is for sharding {world.sharding} with offload {world.offload}, but accelerate was "
            f"told of {asked.sharding} with offload {asked.offload}; leave that out of its config file, or "
            f"plan anew with hardware.sharding={asked.sharding} hardware.offload={asked.offload}"
        )
    return None


def merged(decided: Mapping[str, Any], written: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """`decided` with what a DeepSpeed file adds.

    Raises:
        PlanError: the file says otherwise where the plan has decided.
    """
    made = dict(decided)
    for key, value in written.items():
        if value == "auto" or value is None:
            continue
        if isinstance(value, Mapping) and isinstance(decided.get(key, {}), Mapping):
            made[key] = merged(decided.get(key, {}), value, f"{where}{key}.")
        elif key not in decided or decided[key] == value:
            made[key] = value
        else:
            raise PlanError(
                f"DeepSpeed's configuration: {where}{key} is {value}, but the plan has {decided[key]}; "
                'leave it out, or write "auto"'
            )
    return made
