"""What Accelerate's own launcher hands on for the shipped config files, and what contradicts a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from tlscale.engine.launched import Launched, contradiction, merged, read
from tlscale.errors import PlanError
from tlscale.planning.types import World
from tlscale.recipe.types import Recipe
from tlscale.worker.recipes import fitted

ROOT = Path(__file__).parents[2]
STARTED = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
WANTED = {
    "cpu": (None, "none"),
    "ddp": (None, "none"),
    "fsdp2": ("fsdp2", "none"),
    "zero1": ("zero1", "none"),
    "zero2": ("zero2", "none"),
    "zero3": ("zero3", "none"),
}


def handed_on(*flags: str) -> dict[str, str]:
    """The environment that `accelerate launch FLAGS` gives its processes."""
    given = launch_command_parser().parse_args([*flags, "-m", "tlscale.worker", "recipe.yaml"])
    arguments, defaults, _ = _validate_launch_command(given)
    if arguments.use_deepspeed:
        fields = () if defaults is None else defaults.deepspeed_config
        arguments.deepspeed_fields_from_accelerate_config = ",".join(fields)
        return {**prepare_deepspeed_cmd_env(arguments)[1], **STARTED}
    return {**prepare_multi_gpu_env(arguments), **STARTED}


def test_every_shipped_config_is_here() -> None:
    assert {path.stem for path in (ROOT / "launch" / "accelerate").glob("*.yaml")} == set(WANTED)


@pytest.mark.parametrize(("name", "wanted"), WANTED.items())
def test_shipped_configs_say_what_their_name_says(name: str, wanted: tuple[str | None, str]) -> None:
    found = read(handed_on("--config_file", str(ROOT / "launch" / "accelerate" / f"{name}.yaml")))
    assert (found.sharding, found.offload) == wanted
    assert (found.processes, found.machines) == (2, 1)


@pytest.mark.parametrize("stage", [2, 3])
def test_shipped_deepspeed_files_agree_with_every_plan(stage: int) -> None:
    file = ROOT / "launch" / "deepspeed" / f"zero{stage}.json"
    found = read(handed_on("--use_deepspeed", "--deepspeed_config_file", str(file), "--num_processes", "2"))
    assert found.sharding == f"zero{stage}"
    decided = {"zero_optimization": {"stage": stage}, "gradient_clipping": 1.0}
    made = merged(decided, found.deepspeed)
    assert made["gradient_clipping"] == 1.0
    assert made["zero_optimization"]["reduce_bucket_size"] == 50_000_000


def test_flags_are_read_too() -> None:
    offloaded = handed_on("--use_deepspeed", "--zero_stage", "3", "--offload_param_device", "cpu")
    assert (read(offloaded).sharding, read(offloaded).offload) == ("zero3", "parameters")
    with pytest.raises(PlanError, match="fsdp_version: 2"):
        read(handed_on("--use_fsdp", "--fsdp_version", "1", "--num_processes", "2"))
    with pytest.raises(PlanError, match="allowed: 1, 2, 3"):
        read(handed_on("--use_deepspeed", "--zero_stage", "0"))
    with pytest.raises(PlanError, match="allowed: none, cpu"):
        read(handed_on("--use_deepspeed", "--zero_stage", "3", "--offload_optimizer_device", "nvme"))


def test_a_deepspeed_file_that_contradicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"zero_optimization.stage is 3, but the plan has 2"):
        merged({"zero_optimization": {"stage": 2}}, {"zero_optimization": {"stage": 3}})
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lamb"}}))
    with pytest.raises(PlanError, match="optimizer: the recipe decides"):
        read({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)})
    file.write_text("[]")
    with pytest.raises(PlanError, match="one JSON object"):
        read({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file)})


def world(**more: Any) -> World:
    return World(**{"device": "cpu", "processes": 2, "dtype": "float32", "memory_per_device": None, **more})


@pytest.mark.parametrize(
    ("asked", "live", "fix"),
    [
        (Launched(3), world(), "hardware.processes=3"),
        (Launched(2, 1), world(machines=2), "hardware.machines=1"),
        (Launched(2, 1, "zero2"), world(), "hardware.sharding=zero2"),
        (Launched(2, 1, "zero2", "optimizer"), world(sharding="zero2"), "hardware.offload=optimizer"),
        (Launched(2, 1, "fsdp2"), world(sharding="zero3"), "leave that out of its config file"),
    ],
)
def test_a_world_that_contradicts_the_plan_says_what_to_do(asked: Launched, live: World, fix: str) -> None:
    assert fix in (contradiction(asked, live) or "")


def test_an_open_launcher_contradicts_nothing() -> None:
    assert contradiction(Launched(2), world(sharding="zero3")) is None
    assert contradiction(Launched(2, 1, "zero3"), world(sharding="zero3")) is None


def recipe(**hardware: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "version": 1,
            "name": "t",
            "model": {"model_name_or_path": "tiny", "task": "causal-lm"},
            "strategy": {"kind": "full"},
            "hardware": hardware,
        },
        strict=False,
    )


def test_a_recipe_follows_the_launcher_where_it_is_open() -> None:
    asked = Launched(4, 2, "zero3", "parameters")
    open_recipe = fitted(recipe(), asked).hardware
    assert (open_recipe.processes, open_recipe.machines) == (4, 2)
    assert (open_recipe.sharding, open_recipe.offload) == ("zero3", "parameters")
    said = fitted(recipe(processes=2, sharding="none", offload="none"), asked).hardware
    assert (said.processes, said.sharding, said.offload) == (2, "none", "none")
