"""Applies a planned stage to a loaded model, and proves that the result is what the plan counted.

What trains is float32, whatever the precision of the frozen rest: rounding to bfloat16 would swallow
small updates. Products still run in the world's precision, under autocast.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlscale.errors import PlanError
from tlscale.models import fusion, headfiles, quantize, routing
from tlscale.models.heads import Encoder, PooledClassifier, core, with_core
from tlscale.models.names import ADAPTER, HEAD, ORIGINAL, as_peft, canonical, transformers_model
from tlscale.models.quiet import peft_errors
from tlscale.planning.fusion import FUSION
from tlscale.planning.types import ParamRule, PlannedStage
from tlscale.recipe.types import WITHOUT_TEXT, Task

TASK_TYPES: dict[str, str] = {"causal-lm": "CAUSAL_LM", "sequence-classification": "SEQ_CLS"}
SAVED_BY_PEFT = ("classifier", "score")
CONSTANT = ".ranknum."  # AdaLoRA keeps the count of its ranks as a parameter


def apply(
    module: nn.Module, planned: PlannedStage, *, task: Task, continue_from: Path | None = None
) -> nn.Module:
    """The model that the stage trains: `module` with the adapter around it and every parameter decided.

    Args:
        module: A fresh base from `load_base`; it is used up.
        planned: Its rules decide on every parameter; an adapter's own always train.
        task: Chooses the PEFT model class.
        continue_from: Folder of an earlier stage's adapter of the same kind, to train on.

    Raises:
        PlanError: PEFT refuses the adapter, a parameter has no decision, or the live counts differ from
            an exact plan; the differences are listed.
    """
    stage = planned.stage
    fresh: tuple[str, ...] = getattr(module, "fresh_parameters", ())
    if stage.adapter is not None:
        if isinstance(module, PooledClassifier) and stage.tasks is not None and stage.tasks.adapter_names:
            module.routes = routing.Routes(stage.tasks.sizes, stage.tasks.adapter_names)
        module = with_core(module, _adapted(module, planned, task, continue_from))
        if continue_from is not None and isinstance(module, PooledClassifier):
            headfiles.load_into(module, continue_from)
    scales = _scales(module, planned)
    names = canonical(module)
    random = sorted(
        set(fresh) - {names[live].removeprefix(f"{ADAPTER}modules_to_save.") for live in scales}
    )
    if random:
        raise PlanError(
            f"stage {stage.name}: {', '.join(random)}: not in the checkpoint, so it starts from random "
            "numbers, and the stage would keep it frozen; train it, or use strategy kind: features, which "
            "leaves it out"
        )
    for name, parameter in module.named_parameters():
        trained = name in scales
        if trained and quantize.is_quantized(parameter):
            raise PlanError(
                f"stage {stage.name}: {name} is quantized and can't be trained; train an adapter over it "
                "(strategy kind: peft), or set model.quantization to none"
            )
        parameter.requires_grad_(trained)
        if trained and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
    differences = compare(module, planned)
    if planned.exact and differences:
        raise PlanError(f"stage {stage.name}: the model is not what was planned: " + "; ".join(differences))
    if stage.gradient_checkpointing:
        _checkpoint(module, stage.name)
    return module


def lr_scales(module: nn.Module, planned: PlannedStage) -> dict[str, float]:
    """Factor on the learning rate of each parameter that trains, by live name."""
    scales = _scales(module, planned)
    return {name: scales[name] for name, p in module.named_parameters() if p.requires_grad}


def first_steps(module: nn.Module, planned: PlannedStage) -> dict[str, int]:
    """The step at which each parameter that rests at first begins to train, by live name."""
    rules = planned.stage.rules
    if not any(rule.from_step for rule in rules):
        return {}
    decided = {decision.name: rules[decision.rule] for decision in planned.decisions}
    patterns = [(re.compile(rule.pattern), rule) for rule in rules]
    chosen = {
        live: decided.get(name) or _first_match(name, patterns) for live, name in canonical(module).items()
    }
    return {live: rule.from_step for live, rule in chosen.items() if rule is not None and rule.from_step}


def compare(module: nn.Module, planned: PlannedStage) -> tuple[str, ...]:
    """How the live parameters differ from the plan's count; empty when they don't.

    Parameters of the checkpoint that the task's model has no use for are taken off the plan first.
    """
    names = canonical(module)
    decisions = {decision.name: decision for decision in planned.decisions}
    live = {names[n]: p for n, p in module.named_parameters() if not names[n].startswith(ORIGINAL)}
    found = []
    for name, parameter in live.items():
        size = quantize.size(parameter)
        if name in decisions and size != decisions[name].size:
            found.append(f"{name} has {size:,} weights, planned {decisions[name].size:,}")
    unused = [decision for name, decision in decisions.items() if name not in live]
    # the plan counts biases of the base that an adapter trains as the adapter's
    moved = [n for n in live if n in decisions and decisions[n].lr_scale is None and live[n].requires_grad]
    total = planned.total - sum(d.size for d in unused) - sum(decisions[n].size for n in moved)
    trainable = planned.trainable - sum(d.size for d in unused if d.lr_scale is not None)
    # constants of an adapter, such as AdaLoRA's count of ranks, are no weights
    weights = {n: p for n, p in live.items() if p.requires_grad or not n.startswith(ADAPTER)}
    live_total = sum(quantize.size(p) for p in weights.values())
    live_trainable = sum(quantize.size(p) for p in weights.values() if p.requires_grad)
    if live_trainable != trainable:
        found.append(f"{live_trainable:,} weights train, planned {trainable:,}")
    if live_total != total:
        found.append(f"{live_total:,} weights in all, planned {total:,}")
    return tuple(found)


def after_step(module: nn.Module, step: int) -> None:
    """Lets AdaLoRA move rank between matrices (Zhang et al. 2023, arXiv:2303.10512).

    To be called between the optimizer's step and the zeroing of gradients, which it reads; `step` counts
    from 0. Other models are left alone.
    """
    peft = as_peft(core(module))
    update = getattr(peft.base_model, "update_and_allocate", None) if peft is not None else None
    if update is not None:
        update(step)


def _scales(module: nn.Module, planned: PlannedStage) -> dict[str, float]:
    """Live name -> factor, for what is to train.

    Raises:
        PlanError: no decision and no rule covers a parameter.
    """
    decided = {decision.name: decision.lr_scale for decision in planned.decisions}
    patterns = [(re.compile(rule.pattern), rule) for rule in planned.stage.rules]
    asked = _trained_by_peft(module, planned)
    scales: dict[str, float] = {}
    uncovered = []
    for live, name in canonical(module).items():
        if name.startswith(ORIGINAL):
            continue
        scale = decided.get(name)
        if name not in decided:
            rule = _first_match(name, patterns)
            if rule is None and not name.startswith(ADAPTER):
                uncovered.append(name)
            scale = None if rule is None else rule.lr_scale
        if scale is None and live in asked:
            scale = 1.0
        if scale is not None:
            scales[live] = scale
    if uncovered:
        listed = ", ".join(uncovered[:10])
        raise PlanError(
            f"stage {planned.stage.name}: no rule decides on {len(uncovered)} parameters: {listed}"
        )
    return scales


def _trained_by_peft(module: nn.Module, planned: PlannedStage) -> set[str]:
    """Live names of what the adapter's fields train: its weights, `modules_to_save`, the base's biases."""
    if planned.stage.adapter is None or planned.stage.adapter.peft_type == FUSION:
        return set()
    fields = planned.stage.adapter.fields
    saved = fields.get("modules_to_save")
    heads = [f"{HEAD}{name}." for name in saved] if isinstance(saved, list) else []
    biases = fields.get("bias", "none") != "none"
    found, parameters = set(), dict(module.named_parameters())
    for live, name in canonical(module).items():
        own = name.startswith(ADAPTER) and CONSTANT not in live
        copied = ".modules_to_save." in live and any(name.startswith(head) for head in heads)
        freed = biases and name.endswith("bias") and parameters[live].requires_grad
        if own or copied or freed:
            found.add(live)
    return found


def _first_match(name: str, patterns: list[tuple[re.Pattern[str], ParamRule]]) -> ParamRule | None:
    return next((rule for pattern, rule in patterns if pattern.fullmatch(name)), None)


def _adapted(module: nn.Module, planned: PlannedStage, task: Task, continue_from: Path | None) -> nn.Module:
    from peft import PeftModel, get_peft_config, get_peft_model

    inner: Any = core(module)
    stage = planned.stage
    if stage.adapter is not None and stage.adapter.peft_type == FUSION:
        assert isinstance(module, PooledClassifier), "the strategy asks for a head of ours"
        with peft_errors(f"stage {stage.name}"):
            return module.fuse(*fusion.begun(stage.adapter.fields))
    if continue_from is not None:
        with peft_errors(f"stage {stage.name}"):
            continued: nn.Module = PeftModel.from_pretrained(inner, str(continue_from), is_trainable=True)
        return continued
    fields = _fields(module, planned, task)
    with peft_errors(f"stage {stage.name}"):
        config = get_peft_config(fields)
        _refuse(config, inner, task, stage.name)
        if isinstance(module, PooledClassifier) and isinstance(module.routes, routing.Routes):
            return routing.attached(inner, fields, module.routes)
        adapted: nn.Module = get_peft_model(inner, config)
    return adapted


def _fields(module: nn.Module, planned: PlannedStage, task: Task) -> dict[str, Any]:
    """The adapter's fields as PEFT gets them: with the task, the head's modules, and AdaLoRA's length."""
    adapter = planned.stage.adapter
    assert adapter is not None
    native = not isinstance(module, (Encoder, PooledClassifier))
    task_type = TASK_TYPES.get(task) if native else "FEATURE_EXTRACTION"
    if task in WITHOUT_TEXT:
        task_type = None
    fields: dict[str, Any] = {**adapter.fields, "peft_type": adapter.peft_type, "task_type": task_type}
    if native:
        trained = {d.name for d in planned.decisions if d.name.startswith(HEAD) and d.lr_scale is not None}
        names = canonical(module)
        heads = {live.split(".")[0] for live, name in names.items() if name in trained}
        if task_type == "SEQ_CLS":
            heads -= set(SAVED_BY_PEFT)
        if heads:
            fields["modules_to_save"] = sorted({*(fields.get("modules_to_save") or ()), *heads})
    if adapter.peft_type == "ADALORA" and not fields.get("total_step"):
        if planned.steps is None:
            raise PlanError(
                f"stage {planned.stage.name}: AdaLoRA needs to know its length; set train.max_steps, or "
                "total_step in the strategy"
            )
        fields["total_step"] = planned.steps
    return fields


def _refuse(config: Any, model: Any, task: Task, stage: str) -> None:
    """Combinations that PEFT takes but that give wrong results without a word."""
    peft_type = str(config.peft_type.value)
    if config.is_prompt_learning and task in WITHOUT_TEXT:
        raise PlanError(f"stage {stage}: {peft_type} is for text; use method: lora")
    if getattr(model.config, "tf_padding", False) and not config.is_prompt_learning:
        raise PlanError(
            f"stage {stage}: {type(model).__name__} reads strides off its convolutions, which an adapter "
            "around them hides; use strategy kind: partial or features"
        )
    scores = task == "sequence-classification" and hasattr(model, "score")
    if config.is_prompt_learning and scores and peft_type != "PREFIX_TUNING":
        raise PlanError(
            f"stage {stage}: with {peft_type}, {type(model).__name__} can't tell padding from text and "
            "would classify by them; use method: prefix_tuning or lora"
        )
    if getattr(model.config, "tie_word_embeddings", False) and hasattr(model, "lm_head"):
        shared = {_leaf(model, model.get_input_embeddings()), "lm_head"}
        named = {
            name.rpartition(".")[2]
            for field in ("modules_to_save", "target_modules")
            for name in _listed(getattr(config, field, None))
        }
        if named & shared and not getattr(config, "ensure_weight_tying", False):
            raise PlanError(
                f"stage {stage}: {', '.join(sorted(named & shared))} is shared between input and output of "
                "this model; adapting one side alone would part them; add ensure_weight_tying: true"
            )


def _listed(value: Any) -> list[str]:
    return [] if value is None or isinstance(value, str) else list(value)


def _leaf(model: Any, wanted: nn.Module) -> str:
    return next(str(name).rpartition(".")[2] for name, part in model.named_modules() if part is wanted)


def _checkpoint(module: nn.Module, stage: str) -> None:
    """Recomputes activations in the backward pass, block by block.

    Non-reentrant, so that adapters train although the block's input needs no gradient; asking for input
    gradients instead would walk every frozen block in the backward pass.
    """
    model = transformers_model(module)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise PlanError(
            f"stage {stage}: {type(model).__name__} can't recompute activations; set "
            "train.gradient_checkpointing to false"
        ) from error
    model.disable_input_require_grads()
