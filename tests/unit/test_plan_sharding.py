"""What processes share: the choice where it is left open, its account, and what doesn't go with it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.facts import LABELS, llama
from tests.unit.test_plan_checks import ADAPT, LORA, POOLED, recipe_of, stage_of
from tlscale.errors import PlanError
from tlscale.planning import memory, sharding
from tlscale.planning.checks import check
from tlscale.planning.strategy import TRAIN_ALL
from tlscale.planning.types import Adapter, Batch, ParamRule, Update, World
from tlscale.recipe.types import Model

NEEDS = {"none": 100, "zero1": 80, "zero2": 60, "zero3": 30, "fsdp2": 30}


def world(room: int | None = None, processes: int = 2, **more: Any) -> World:
    return World(device="cuda", processes=processes, dtype="bfloat16", memory_per_device=room, **more)


@pytest.mark.parametrize(
    ("room", "processes", "refused", "chosen"),
    [
        (None, 2, (), "none"),
        (100, 2, (), "none"),
        (99, 2, (), "zero1"),
        (70, 2, (), "zero2"),
        (50, 2, (), "zero3"),
        (50, 2, ("zero1", "zero2", "zero3"), "fsdp2"),
        (10, 2, (), "none"),
        (50, 1, (), "none"),
    ],
)
def test_auto_shares_as_little_as_fits(
    room: int | None, processes: int, refused: tuple[str, ...], chosen: str
) -> None:
    made, why = sharding.choose(
        "auto", world(room, processes), lambda w: NEEDS[w.sharding], lambda w: w.sharding in refused
    )
    assert made.sharding == chosen
    assert bool(why) == (processes > 1 and room is not None and room >= NEEDS[chosen])
    assert why.startswith(f"hardware.sharding: {chosen}") or not why


def test_what_is_asked_for_is_taken() -> None:
    made, why = sharding.choose("zero3", world(1), lambda w: 100, lambda w: False)
    assert (made.sharding, why) == ("zero3", "")
    assert (made.backend, made.shards_weights) == ("zero3", True)
    assert (world().backend, world(processes=1).backend) == ("ddp", "single")


def account(live: World) -> dict[str, int]:
    facts = llama(layers=8)
    recipe = recipe_of()
    made = stage_of(recipe, facts, rules=(TRAIN_ALL,))
    trained = sum(t.size for t in facts.tensors)
    batch = Batch(micro=1, accumulation=1, world=live.processes)
    model = Model(model_name_or_path="tiny", task="causal-lm")
    items = memory.account(facts, made, batch, live, 16, model, trained)
    return {item.name: item.bytes for item in items}


def test_the_account_divides_what_is_shared() -> None:
    whole = account(world())
    assert whole["buckets"] == whole["gradients"] > 0
    for name, shared in (("zero1", ("optimizer",)), ("zero2", ("optimizer", "gradients"))):
        parts = account(world(sharding=name))
        assert {k for k in whole if k != "buckets" and parts[k] == whole[k] // 2} == set(shared)
    full = account(world(sharding="fsdp2"))
    assert full["weights"] == whole["weights"] // 2
    assert 0 < full["gathered"] < whole["weights"]
    waiting = account(world(sharding="zero3", offload="parameters"))
    assert "optimizer" not in waiting
    assert "weights" not in waiting
    assert account(world(processes=1)).keys() == whole.keys() - {"buckets"}


ADALORA = Adapter(peft_type="ADALORA", fields={"r": 4})
PROMPT = Adapter(peft_type="PROMPT_TUNING", fields={"num_virtual_tokens": 4})
SGD = Update(optim="sgd", learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.999), max_grad_norm=1.0)
LATER = ParamRule(pattern=r".*", lr_scale=1.0, from_step=3)
CLASHES: list[tuple[str, World, dict[str, Any], str]] = [
    ("uneven", world(processes=3, machines=2), ADAPT, "multiple of hardware.machines"),
    ("alone", world(processes=1, sharding="zero2"), ADAPT, "hardware.processes to 2 or more"),
    ("offload by DDP", world(offload="optimizer"), ADAPT, "zero1, zero2 or zero3"),
    ("offload by FSDP", world(sharding="fsdp2", offload="optimizer"), ADAPT, "zero1, zero2 or zero3"),
    (
        "offload on a CPU",
        world(sharding="fsdp2", offload="parameters").model_copy(update={"device": "cpu"}),
        ADAPT,
        "hardware.sharding to zero3",
    ),
    ("weights kept whole", world(sharding="zero2", offload="parameters"), ADAPT, "zero3 or fsdp2"),
    ("AdaLoRA", world(sharding="zero1"), {**ADAPT, "adapter": ADALORA}, "method: lora"),
    ("prompts", world(sharding="fsdp2"), {**ADAPT, "adapter": PROMPT}, "none, zero1 or zero2"),
    ("momentum", world(sharding="fsdp2"), {"update": SGD}, "train.optim to adamw"),
    ("float16", world(sharding="fsdp2").model_copy(update={"dtype": "float16"}), ADAPT, "bfloat16"),
]


@pytest.mark.parametrize(("live", "slots", "fix"), [c[1:] for c in CLASHES], ids=[c[0] for c in CLASHES])
def test_what_does_not_go_together_says_what_does(live: World, slots: dict[str, Any], fix: str) -> None:
    recipe, facts = recipe_of(), llama()
    with pytest.raises(PlanError, match=fix):
        check(recipe, facts, (stage_of(recipe, facts, **slots),), live)


def test_a_pooled_head_is_not_sharded() -> None:
    recipe, facts = recipe_of("sequence-classification"), llama(labels=LABELS)
    with pytest.raises(PlanError, match="kept whole on each process"):
        check(recipe, facts, (stage_of(recipe, facts, **POOLED),), world(sharding="fsdp2"))


DORA = Adapter(peft_type="LORA", fields={"r": 4, "use_dora": True})


@pytest.mark.parametrize(
    ("quantization", "sharding", "adapter", "fix"),
    [
        ("int8", "fsdp2", LORA, "nf4, or hardware.sharding to none, zero1 or zero2"),
        ("int8", "none", DORA, "nf4, or leave use_dora out"),
        ("nf4", "zero3", DORA, "fsdp2, zero2 or none, or leave use_dora out"),
    ],
)
def test_quantized_weights_that_cannot_be_sharded(
    quantization: str, sharding: str, adapter: Adapter, fix: str
) -> None:
    recipe, facts = recipe_of(model={"quantization": quantization}), llama()
    made = stage_of(recipe, facts, adapter=adapter, rules=ADAPT["rules"])
    with pytest.raises(PlanError, match=fix):
        check(recipe, facts, (made,), world(sharding=sharding))


def test_the_rest_goes_together() -> None:
    recipe, facts = recipe_of(), llama()
    made = stage_of(recipe, facts, adapter=LORA, rules=ADAPT["rules"])
    for name in ("zero1", "zero2", "zero3", "fsdp2"):
        check(recipe, facts, (made,), world(sharding=name))
