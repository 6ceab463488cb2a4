"""What doesn't go together with quantized weights, several processes, sharding and offload.

A part of the table of clashes.
"""

from __future__ import annotations

from tlscale.planning import sharding
from tlscale.planning.cases import Case, Clash

PROMPTS = ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT")


def _kind(case: Case) -> str:
    return "" if case.stage is None or case.stage.adapter is None else case.stage.adapter.peft_type


def _uses_dora(case: Case) -> bool:
    adapter = None if case.stage is None else case.stage.adapter
    return adapter is not None and bool(adapter.fields.get("use_dora"))


def _is_zero(case: Case) -> bool:
    return case.world.sharding.startswith("zero")


CLASHES: tuple[Clash, ...] = (
    Clash(
        "hardware.machines",
        lambda c: c.world.processes % c.world.machines != 0,
        "the processes can't be shared out evenly over so many machines",
        "set hardware.processes to a multiple of hardware.machines",
    ),
    Clash(
        "hardware.sharding",
        lambda c: c.world.processes == 1 and c.world.sharding != "none",
        "a single process has nobody to share with",
        "set hardware.processes to 2 or more, or hardware.sharding to none",
    ),
    Clash(
        "hardware.sharding",
        lambda c: sharding.missing(c.world.sharding),
        "DeepSpeed is not installed",
        'pip install "tlscale[deepspeed]", or set hardware.sharding to fsdp2',
    ),
    Clash(
        "hardware.offload",
        lambda c: c.world.offload == "optimizer" and not _is_zero(c),
        "only ZeRO keeps the optimizer alone in the host's memory",
        "set hardware.sharding to zero1, zero2 or zero3, or hardware.offload to none",
    ),
    Clash(
        "hardware.offload",
        lambda c: c.world.offload == "parameters" and not c.world.shards_weights,
        "weights can wait in the host's memory only where they are sharded",
        "set hardware.sharding to zero3 or fsdp2, or hardware.offload to optimizer or none",
    ),
    Clash(
        "hardware.offload",
        lambda c: (
            c.world.offload == "parameters" and c.world.sharding == "fsdp2" and c.world.device == "cpu"
        ),
        "FSDP2 moves weights between a GPU and the host, and here is only the host",
        "set hardware.offload to none, or hardware.sharding to zero3",
    ),
    Clash(
        "model.dtype",
        lambda c: c.world.dtype == "float16" and c.world.sharding != "none",
        "float16 needs its loss scaled, which sharding doesn't do here",
        "set model.dtype to bfloat16 or float32, or hardware.sharding to none",
    ),
    Clash(
        "model.quantization",
        lambda c: c.recipe.model.quantization == "int8" and c.world.sharding == "fsdp2",
        "an 8-bit layer looks for its scales on the very parameter that sharding takes the place of",
        "set model.quantization to nf4, or hardware.sharding to none, zero1 or zero2",
    ),
    Clash(
        "model.quantization",
        lambda c: c.recipe.model.quantization == "int8" and _uses_dora(c),
        "DoRA reads an 8-bit weight before its layer does, which then finds no scales",
        "set model.quantization to nf4, or leave use_dora out",
    ),
    Clash(
        "model.quantization",
        lambda c: (
            c.recipe.model.quantization in ("nf4", "fp4") and _uses_dora(c) and c.world.sharding == "zero3"
        ),
        "DoRA unpacks a whole weight outside its layer, and ZeRO-3 gathers it only inside",
        "set hardware.sharding to fsdp2, zero2 or none, or leave use_dora out",
    ),
    Clash(
        "strategy",
        lambda c: _kind(c) == "ADALORA" and c.world.sharding != "none",
        "AdaLoRA reads every gradient in full after a step, and they are shared out",
        "set hardware.sharding to none, or use method: lora",
    ),
    Clash(
        "train.optim",
        lambda c: c.stage is not None and c.stage.update.optim == "sgd" and c.world.sharding != "none",
        "only AdamW's averages are shared out among processes",
        "set train.optim to adamw, or hardware.sharding to none",
    ),
    Clash(
        "strategy",
        lambda c: _kind(c) in PROMPTS and c.world.shards_weights,
        "a prompt is computed from its encoder when it is saved, and its weights are shared out",
        "set hardware.sharding to none, zero1 or zero2, or use method: lora",
    ),
    Clash(
        "hardware.sharding",
        lambda c: c.pooled and c.world.shards_weights,
        "a head over pooled features is kept whole on each process",
        "set hardware.sharding to none, zero1 or zero2",
    ),
    Clash(
        "train.on_nonfinite",
        lambda c: _is_zero(c) and c.stage is not None and c.stage.safety.on_nonfinite == "skip",
        "ZeRO updates its weights before the whole gradient is known",
        "set train.on_nonfinite to stop, or hardware.sharding to fsdp2 or none",
    ),
)
