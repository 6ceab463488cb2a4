"""Parameters of well-known architectures, computed from `config.json` where there are no weights to read.

Used for planning before a download and for training from scratch. Names are canonical.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tlscale.planning.architecture import lookup
from tlscale.planning.types import Architecture

Shapes = dict[str, tuple[int, ...]]


def from_config(architecture: Architecture, config: Mapping[str, Any]) -> Shapes | None:
    """The backbone's parameters, or `None` for an architecture that is not in the table."""
    build = _BUILDERS.get(architecture.model_type)
    return None if build is None else build(architecture, config)


def supported() -> tuple[str, ...]:
    """Architectures that can be planned from their config alone."""
    return tuple(sorted(_BUILDERS))


def _linear(made: Shapes, name: str, rows: int, columns: int, *, bias: bool) -> None:
    made[f"{name}.weight"] = (rows, columns)
    if bias:
        made[f"{name}.bias"] = (rows,)


def _norm(made: Shapes, name: str, width: int) -> None:
    made[f"{name}.weight"] = (width,)
    made[f"{name}.bias"] = (width,)


def _llama(a: Architecture, config: Mapping[str, Any]) -> Shapes:
    qwen2 = a.model_type == "qwen2"
    bias = bool(config.get("attention_bias", False))
    mlp_bias = bool(config.get("mlp_bias", False))
    queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
    made: Shapes = {"embed_tokens.weight": (a.vocab_size, a.hidden_size)}
    for layer in range(a.layers):
        at = f"layers.{layer}."
        _linear(made, at + "self_attn.q_proj", queries, a.hidden_size, bias=bias or qwen2)
        _linear(made, at + "self_attn.k_proj", keys, a.hidden_size, bias=bias or qwen2)
        _linear(made, at + "self_attn.v_proj", keys, a.hidden_size, bias=bias or qwen2)
        _linear(made, at + "self_attn.o_proj", a.hidden_size, queries, bias=bias)
        if a.model_type == "qwen3":
            made[at + "self_attn.q_norm.weight"] = (a.head_dim,)
            made[at + "self_attn.k_norm.weight"] = (a.head_dim,)
        _linear(made, at + "mlp.gate_proj", a.intermediate_size, a.hidden_size, bias=mlp_bias)
        _linear(made, at + "mlp.up_proj", a.intermediate_size, a.hidden_size, bias=mlp_bias)
        _linear(made, at + "mlp.down_proj", a.hidden_size, a.intermediate_size, bias=mlp_bias)
        made[at + "input_layernorm.weight"] = (a.hidden_size,)
        made[at + "post_attention_layernorm.weight"] = (a.hidden_size,)
    made["norm.weight"] = (a.hidden_size,)
    return made


def _gpt2(a: Architecture, config: Mapping[str, Any]) -> Shapes:
    # GPT-2's Conv1D keeps weights as [inputs, outputs]
    hidden, inner = a.hidden_size, a.intermediate_size
    made: Shapes = {"wte.weight": (a.vocab_size, hidden), "wpe.weight": (a.max_length, hidden)}
    for layer in range(a.layers):
        at = f"h.{layer}."
        _norm(made, at + "ln_1", hidden)
        for name, inputs, outputs in (
            ("attn.c_attn", hidden, 3 * hidden),
            ("attn.c_proj", hidden, hidden),
            ("mlp.c_fc", hidden, inner),
            ("mlp.c_proj", inner, hidden),
        ):
            made[f"{at}{name}.weight"] = (inputs, outputs)
            made[f"{at}{name}.bias"] = (outputs,)
        _norm(made, at + "ln_2", hidden)
    _norm(made, "ln_f", hidden)
    return made


def _bert(a: Architecture, config: Mapping[str, Any]) -> Shapes:
    hidden = a.hidden_size
    positions = lookup(config, "max_position_embeddings", default=512)
    made: Shapes = {
        "embeddings.word_embeddings.weight": (a.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (positions, hidden),
        "embeddings.token_type_embeddings.weight": (lookup(config, "type_vocab_size", default=2), hidden),
    }
    _norm(made, "embeddings.LayerNorm", hidden)
    for layer in range(a.layers):
        at = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            _linear(made, f"{at}attention.self.{name}", hidden, hidden, bias=True)
        _linear(made, at + "attention.output.dense", hidden, hidden, bias=True)
        _norm(made, at + "attention.output.LayerNorm", hidden)
        _linear(made, at + "intermediate.dense", a.intermediate_size, hidden, bias=True)
        _linear(made, at + "output.dense", hidden, a.intermediate_size, bias=True)
        _norm(made, at + "output.LayerNorm", hidden)
    _linear(made, "pooler.dense", hidden, hidden, bias=True)
    return made


def _distilbert(a: Architecture, config: Mapping[str, Any]) -> Shapes:
    hidden = a.hidden_size
    made: Shapes = {
        "embeddings.word_embeddings.weight": (a.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (a.max_length, hidden),
    }
    _norm(made, "embeddings.LayerNorm", hidden)
    for layer in range(a.layers):
        at = f"transformer.layer.{layer}."
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            _linear(made, f"{at}attention.{name}", hidden, hidden, bias=True)
        _norm(made, at + "sa_layer_norm", hidden)
        _linear(made, at + "ffn.lin1", a.intermediate_size, hidden, bias=True)
        _linear(made, at + "ffn.lin2", hidden, a.intermediate_size, bias=True)
        _norm(made, at + "output_layer_norm", hidden)
    return made


def _vit(a: Architecture, config: Mapping[str, Any]) -> Shapes:
    hidden, patch = a.hidden_size, lookup(config, "patch_size", default=16)
    channels = lookup(config, "num_channels", default=3)
    bias = bool(config.get("qkv_bias", True))
    made: Shapes = {
        "embeddings.cls_token": (1, 1, hidden),
        "embeddings.position_embeddings": (1, a.max_length, hidden),
        "embeddings.patch_embeddings.projection.weight": (hidden, channels, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (hidden,),
    }
    for layer in range(a.layers):
        at = f"layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj"):
            _linear(made, f"{at}attention.{name}", hidden, hidden, bias=bias)
        _linear(made, at + "attention.o_proj", hidden, hidden, bias=True)
        _norm(made, at + "layernorm_before", hidden)
        _norm(made, at + "layernorm_after", hidden)
        _linear(made, at + "mlp.fc1", a.intermediate_size, hidden, bias=True)
        _linear(made, at + "mlp.fc2", hidden, a.intermediate_size, bias=True)
    _norm(made, "layernorm", hidden)
    _linear(made, "pooler.dense", hidden, hidden, bias=True)
    return made


def _spectrogram(a: Architecture, config: Mapping[str, Any]) -> Shapes:
    """A vision transformer over one channel, with a second token beside the class token."""
    made = _vit(a, {**config, "num_channels": 1})
    made["embeddings.distillation_token"] = made["embeddings.cls_token"]
    return {name: shape for name, shape in made.items() if not name.startswith("pooler.")}


_BUILDERS: dict[str, Callable[[Architecture, Mapping[str, Any]], Shapes]] = {
    "audio-spectrogram-transformer": _spectrogram,
    "bert": _bert,
    "distilbert": _distilbert,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "roberta": _bert,
    "vit": _vit,
}
