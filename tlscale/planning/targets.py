"""Which layers of a model a PEFT method changes, decided as PEFT decides, without importing it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlscale.errors import PlanError, nearest
from tlscale.planning import heads
from tlscale.planning.naming import prefix_of
from tlscale.planning.types import Adapter, Facts, Tensor

ALL_LINEAR = "all-linear"
SAVED_BY_PEFT = ("score", "classifier")

# PEFT 0.21's own choice of modules where target_modules is left out (peft/utils/constants.py)
_QV = ("q_proj", "v_proj")
LORA: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        "bart gemma gemma2 gemma3_text gpt_neo gptj llama mistral mixtral opt qwen2 qwen3 stablelm".split(),
        _QV,
    ),
    **dict.fromkeys("bert electra layoutlm roberta xlm-roberta".split(), ("query", "value")),
    **dict.fromkeys("bloom falcon gpt_neox".split(), ("query_key_value",)),
    **dict.fromkeys("gpt2 gpt_bigcode".split(), ("c_attn",)),
    "codegen": ("qkv_proj",),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "value_proj"),
    "mpt": ("Wqkv",),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
}
ADALORA: dict[str, tuple[str, ...]] = {
    **dict.fromkeys("gemma gemma2 gemma3_text gpt_neo gptj llama qwen2 qwen3".split(), _QV),
    **dict.fromkeys("bart opt".split(), ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")),
    **dict.fromkeys("bloom gpt_neox".split(), ("query_key_value",)),
    **dict.fromkeys("gpt2 gpt_bigcode".split(), ("c_attn",)),
    "bert": ("query", "value"),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "dense"),
    "roberta": ("query", "key", "value", "dense"),
}
# the modules, and those of them whose inputs (not outputs) are scaled
IA3: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys("llama mistral".split(), (("k_proj", "v_proj", "down_proj"), ("down_proj",))),
    **dict.fromkeys(
        "gemma gemma2 gemma3_text qwen2 qwen3".split(), (("q_proj", "v_proj", "down_proj"), ("down_proj",))
    ),
    **dict.fromkeys("bert roberta".split(), (("key", "value", "output.dense"), ("output.dense",))),
    **dict.fromkeys("gpt2 gpt_bigcode".split(), (("c_attn", "mlp.c_proj"), ("mlp.c_proj",))),
    **dict.fromkeys("falcon gpt_neox".split(), (("query_key_value", "dense_4h_to_h"), ("dense_4h_to_h",))),
    "bart": (("q_proj", "v_proj", "fc2"), ("fc2",)),
    "bloom": (("query_key_value", "mlp.dense_4h_to_h"), ("mlp.dense_4h_to_h",)),
    "deberta": (("in_proj", "output.dense"), ("output.dense",)),
    "deberta-v2": (("key_proj", "value_proj", "output.dense"), ("output.dense",)),
    "gpt_neo": (("q_proj", "v_proj", "c_proj"), ("c_proj",)),
    "gptj": (("q_proj", "v_proj", "fc_out"), ("fc_out",)),
    "opt": (("q_proj", "k_proj", "fc2"), ("fc2",)),
    "phi": (("q_proj", "v_proj", "fc2"), ("fc2",)),
}
# modules of these names look things up or slide over images rather than multiply
_EMBEDDING = re.compile(r".*(?:embed\w*|wte|wpe|shared|position_embeddings?|word_embeddings)")
_TRANSPOSED = re.compile(r".*(?:c_attn|c_proj|c_fc|q_attn)")


@dataclass(frozen=True)
class Module:
    """A layer with a weight: its name in the task's model, and its width on both sides.

    `kind` decides what a method adds to it; `taps` is a convolution's kernel area, 1 otherwise.
    """

    name: str
    tensor: str
    kind: str
    inputs: int
    outputs: int
    taps: int
    has_bias: bool


def targets(adapter: Adapter, facts: Facts) -> tuple[Module, ...]:
    """The layers that a method of the LoRA or IA3 kind changes; empty for prompt methods.

    Raises:
        PlanError: as `adapter_size`.
    """
    if adapter.peft_type == "IA3":
        default: Sequence[str] | None = IA3.get(facts.architecture.model_type, (None,))[0]
    elif adapter.peft_type == "ADALORA":
        default = ADALORA.get(facts.architecture.model_type)
    elif adapter.peft_type == "LORA":
        default = LORA.get(facts.architecture.model_type)
    else:
        return ()
    return chosen_modules(adapter.fields, facts, default)


def modules(facts: Facts) -> tuple[Module, ...]:
    """Every layer of the task's model that PEFT could wrap, with its live name."""
    prefix = prefix_of(facts.architecture.model_type)
    sizes = {tensor.name: tensor for tensor in facts.tensors}
    found = [
        _module(tensor, f"{prefix}.", f"{tensor.name.removesuffix('.weight')}.bias" in sizes)
        for tensor in facts.tensors
        if tensor.name.endswith(".weight") and len(tensor.shape) in (2, 4)
    ]
    return tuple(found)


def _module(tensor: Tensor, prefix: str, has_bias: bool) -> Module:
    own = tensor.name.removesuffix(".weight")
    name = own.removeprefix("head.") if own.startswith("head.") else prefix + own
    rows, columns = tensor.shape[:2]
    taps = 1
    if len(tensor.shape) == 4:
        kind, taps = "convolution", tensor.shape[2] * tensor.shape[3]
    elif _EMBEDDING.fullmatch(own) and not own.startswith("head."):
        kind = "embedding"
    else:
        kind = "linear"
        if _TRANSPOSED.fullmatch(own):
            rows, columns = columns, rows
    return Module(name, tensor.name, kind, columns, rows, taps, has_bias)


def chosen_modules(
    fields: Mapping[str, Any], facts: Facts, default: Sequence[str] | None
) -> tuple[Module, ...]:
    asked = fields.get("target_modules")
    if asked is None:
        if fields.get("target_parameters"):
            return ()
        if default is None:
            raise PlanError(
                f"strategy.target_modules: PEFT has no default for {facts.architecture.model_type}; "
                f"give all-linear or a list of: {', '.join(_last_names(modules(facts)))}"
            )
        asked = list(default)
    there = modules(facts)
    if isinstance(asked, str) and asked.lower() == ALL_LINEAR:
        outputs = ("head.lm_head.weight", *heads.DECODERS)
        chosen = [m for m in there if m.kind == "linear" and m.tensor not in outputs]
        return tuple(m for m in chosen if not _excluded(m, fields, facts))
    chosen = [m for m in there if is_named(m, asked) and _in_layers(m, asked, fields)]
    chosen = [m for m in chosen if not _excluded(m, fields, facts)]
    if not chosen:
        raise PlanError(_no_match(asked, there))
    return tuple(chosen)


def spellings(module: Module) -> tuple[str, ...]:
    """Live names that the layer may have: in the task's model, and in the backbone alone."""
    own = module.tensor.removesuffix(".weight")
    return (module.name,) if own.startswith("head.") else (module.name, own)


def is_named(module: Module, asked: str | Sequence[str]) -> bool:
    if isinstance(asked, str):
        return any(re.fullmatch(asked, name) for name in spellings(module))
    return any(name == a or name.endswith(f".{a}") for a in asked for name in spellings(module))


def _in_layers(module: Module, asked: str | Sequence[str], fields: Mapping[str, Any]) -> bool:
    """Whether layers_to_transform, if given, has the block of `module`."""
    wanted = fields.get("layers_to_transform")
    if wanted is None or wanted == [] or isinstance(asked, str) or module.name in asked:
        return True
    given = fields.get("layers_pattern") or r"[^.]*"
    patterns = [given] if isinstance(given, str) else given
    for pattern in patterns:
        match = re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module.name)
        if match:
            return int(match[1]) in (wanted if isinstance(wanted, list) else [wanted])
    return False


def _excluded(module: Module, fields: Mapping[str, Any], facts: Facts) -> bool:
    excluded, saved = fields.get("exclude_modules"), fields.get("modules_to_save") or ()
    if excluded and is_named(module, excluded):
        return True
    if facts.labels and module.tensor.startswith("head."):
        # heads that are trained, and a text classifier's always, are whole copies in PEFT
        is_text = facts.architecture.vocab_size > 0
        if facts.head_is_new or (is_text and module.name.split(".")[0] in SAVED_BY_PEFT):
            return True
    return any(re.match(rf"(^|.*\.){name}($|\..*)", module.name) for name in saved)


def _last_names(there: Sequence[Module]) -> list[str]:
    return sorted({m.name.rpartition(".")[2] for m in there if not m.tensor.startswith("head.")})


def _no_match(asked: str | Sequence[str], there: Sequence[Module]) -> str:
    names = _last_names(there)
    given = [asked] if isinstance(asked, str) else list(asked)
    near = [n for a in given if (n := nearest(a.rpartition(".")[2].strip("$)"), names))]
    hint = f"did you mean {', '.join(dict.fromkeys(near))}? " if near else ""
    return (
        f"strategy.target_modules: {', '.join(map(str, given))} matches no layer; {hint}"
        f"layers there: {', '.join(names)}; or all-linear"
    )
