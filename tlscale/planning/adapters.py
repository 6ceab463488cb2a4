"""How many parameters a PEFT method adds to a base model, without importing PEFT."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tlscale.planning.fusion import FUSION, attention_size
from tlscale.planning.targets import ADALORA, IA3, LORA, Module, chosen_modules, is_named, spellings
from tlscale.planning.types import Adapter, Architecture, Facts

ESTIMATED_SHARE = 0.01


def adapter_size(adapter: Adapter, facts: Facts) -> tuple[int, bool]:
    """Parameters that `adapter` adds to the base and trains, and whether the count is exact.

    A classification head in modules_to_save is left out, because the rules already count it; other
    modules there are counted as the copies that PEFT makes of them.

    Raises:
        PlanError: target_modules matches no layer, or is needed for this architecture and missing.
    """
    count = _COUNTERS.get(adapter.peft_type)
    if count is None:
        return round(ESTIMATED_SHARE * sum(tensor.size for tensor in facts.tensors)), False
    added, exact = count(adapter.fields, facts)
    return added + _saved_copies(adapter.fields, facts), exact and facts.origin == "safetensors"


def _pattern(table: object, module: Module, default: int) -> int:
    """The value for `module` in a rank_pattern: the first key that ends its name, as PEFT looks it up."""
    if isinstance(table, Mapping):
        for key, value in table.items():
            if any(re.match(rf"(.*\.)?({key})$", name) for name in spellings(module)):
                return int(value)
    return default


def _count(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _lora(fields: Mapping[str, Any], facts: Facts) -> tuple[int, bool]:
    rank = _count(fields, "r", 8)
    chosen = chosen_modules(fields, facts, LORA.get(facts.architecture.model_type))
    added = 0
    for module in chosen:
        r = _pattern(fields.get("rank_pattern"), module, rank)
        added += r * (module.inputs * module.taps + module.outputs)
        if fields.get("use_dora"):
            added += module.outputs
        if fields.get("lora_bias"):
            added += module.outputs
    exact = all(m.kind == "linear" for m in chosen) and not any(
        fields.get(name) for name in ("target_parameters", "trainable_token_indices", "use_qalora")
    )
    return added + _unfrozen_biases(fields, facts, chosen), exact


def _unfrozen_biases(fields: Mapping[str, Any], facts: Facts, chosen: Sequence[Module]) -> int:
    """Biases of the base that `bias: all` or `bias: lora_only` trains.

    They are moved, not added, and counted here because no rule over the base's parameters trains them.
    """
    kind = fields.get("bias", "none")
    if kind == "lora_only":
        return sum(module.outputs for module in chosen if module.has_bias)
    if kind == "all":
        biases = (t for t in facts.tensors if "bias" in t.name and not t.name.startswith("head."))
        return sum(tensor.size for tensor in biases)
    return 0


def _adalora(fields: Mapping[str, Any], facts: Facts) -> tuple[int, bool]:
    """P [r, inputs], Lambda [r, 1] and Q [outputs, r] per layer at the initial rank (arXiv:2303.10512)."""
    rank = _count(fields, "init_r", 12)
    chosen = chosen_modules(fields, facts, ADALORA.get(facts.architecture.model_type))
    added = sum(_pattern(fields.get("rank_pattern"), m, rank) * (m.inputs + m.outputs + 1) for m in chosen)
    return added + _unfrozen_biases(fields, facts, chosen), all(m.kind == "linear" for m in chosen)


def _ia3(fields: Mapping[str, Any], facts: Facts) -> tuple[int, bool]:
    """One factor per output, or per input of a feed-forward layer (arXiv:2205.05638)."""
    default, default_feedforward = IA3.get(facts.architecture.model_type, (None, ()))
    chosen = chosen_modules(fields, facts, default)
    # with target_modules given, PEFT leaves feedforward_modules to the user too
    given = fields.get("feedforward_modules")
    inner = given if given is not None else default_feedforward if not fields.get("target_modules") else ()
    added = sum(m.inputs if inner and is_named(m, inner) else m.outputs for m in chosen)
    return added, all(m.kind == "linear" for m in chosen)


def _key_width(architecture: Architecture) -> int:
    return architecture.kv_heads * architecture.head_dim


def _prompt(fields: Mapping[str, Any], facts: Facts) -> tuple[int, bool]:
    tokens = _count(fields, "num_virtual_tokens", 0)
    return tokens * _count(fields, "token_dim", facts.architecture.hidden_size), True


def _prefix(fields: Mapping[str, Any], facts: Facts) -> tuple[int, bool]:
    """A key and a value per layer and virtual token (arXiv:2101.00190), or an MLP that makes them."""
    width = _count(fields, "token_dim", _key_width(facts.architecture))
    out = 2 * _count(fields, "num_layers", facts.architecture.layers) * width
    tokens = _count(fields, "num_virtual_tokens", 0)
    if not fields.get("prefix_projection"):
        return tokens * out, True
    inner = _count(fields, "encoder_hidden_size", width)
    return tokens * width + (width + 1) * inner + (inner + 1) * out, True


def _p_tuning(fields: Mapping[str, Any], facts: Facts) -> tuple[int, bool]:
    """Virtual tokens through a three-layer MLP or an LSTM (arXiv:2103.10385)."""
    width = _count(fields, "token_dim", facts.architecture.hidden_size)
    inner = _count(fields, "encoder_hidden_size", width)
    embedding = _count(fields, "num_virtual_tokens", 0) * width
    if fields.get("encoder_reparameterization_type", "MLP") == "MLP":
        return embedding + (width + 1) * inner + (inner + 1) * inner + (inner + 1) * width, True
    recurrent = 0
    for layer in range(_count(fields, "encoder_num_layers", 2)):
        inputs = width if layer == 0 else 2 * inner
        recurrent += 2 * 4 * inner * (inputs + inner + 2)
    output = (2 * inner + 1) * 2 * inner + (2 * inner + 1) * width
    return embedding + recurrent + output, True


def _saved_copies(fields: Mapping[str, Any], facts: Facts) -> int:
    saved = fields.get("modules_to_save") or ()
    if not isinstance(saved, Sequence) or isinstance(saved, str):
        return 0
    classifies = bool(facts.labels)
    added = 0
    for tensor in facts.tensors:
        is_head = tensor.name.startswith("head.")
        if is_head and classifies:
            continue
        path = tensor.name.removeprefix("head.").split(".")[:-1]
        if any(f".{'.'.join(path)}.".find(f".{name}.") >= 0 for name in saved):
            added += tensor.size
    return added


def _fusion(fields: Mapping[str, Any], facts: Facts) -> tuple[int, bool]:
    return attention_size(fields, facts), False  # the adapters themselves are there, and rest


_COUNTERS: dict[str, Callable[[Mapping[str, Any], Facts], tuple[int, bool]]] = {
    "ADALORA": _adalora,
    FUSION: _fusion,
    "IA3": _ia3,
    "LORA": _lora,
    "PREFIX_TUNING": _prefix,
    "PROMPT_TUNING": _prompt,
    "P_TUNING": _p_tuning,
}
