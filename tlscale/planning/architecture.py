"""The dimensions that memory and time depend on, from a transformers `config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlscale.errors import PlanError
from tlscale.planning.headers import Stored
from tlscale.planning.types import Architecture

# transformers' defaults for keys that older or hand-written configs leave out
DEFAULTS: dict[str, dict[str, int]] = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024},
    "distilbert": {
        "dim": 768,
        "hidden_dim": 3072,
        "n_layers": 6,
        "n_heads": 12,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    },
    "vit": {"image_size": 224, "patch_size": 16},
    "audio-spectrogram-transformer": {
        "num_mel_bins": 128,
        "max_length": 1024,
        "patch_size": 16,
        "frequency_stride": 10,
        "time_stride": 10,
    },
}
# tied unless the config says otherwise; the rest keep a separate output layer
TIED = frozenset(
    "albert bart bert bloom camembert codegen cohere cohere2 deberta deberta-v2 distilbert electra "
    "falcon gemma gemma2 gemma3_text gpt2 gpt_bigcode gpt_neo longformer mbart modernbert mpnet mpt opt "
    "roberta xlm-roberta xlm-roberta-xl xlnet".split()
)


def lookup(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    """The first of `names` that the config gives as a number (of a list: its last), else `default`."""
    table = {**DEFAULTS.get(str(config.get("model_type")), {}), **config}
    for name in names:
        value = table.get(name)
        if isinstance(value, list) and value and isinstance(value[-1], int):
            return value[-1]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return default


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language part of a config that nests it, else the config itself."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the output layer shares the input embedding's weight."""
    given = config.get("tie_word_embeddings")
    return bool(given) if given is not None else config.get("model_type") in TIED


def read_architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """`Architecture` from a config; for images and sound `max_length` counts patches; 0 for convolutions.

    Raises:
        PlanError: no `model_type`.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise PlanError(f"{where}: has no model_type, so it is no transformers model configuration")
    inner = text_config(config)
    hidden = lookup(inner, "hidden_size", "n_embd", "d_model", "dim", "hidden_sizes")
    heads = lookup(
        inner, "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"
    )
    intermediate = lookup(inner, "intermediate_size", "n_inner", "ffn_dim", "hidden_dim", "encoder_ffn_dim")
    if not intermediate and heads:
        intermediate = hidden * lookup(inner, "mlp_ratio", default=4)
    return Architecture(
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=intermediate,
        layers=lookup(inner, "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
        heads=heads,
        kv_heads=lookup(inner, "num_key_value_heads", default=heads),
        head_dim=lookup(inner, "head_dim", default=hidden // heads if heads else 0),
        vocab_size=lookup(inner, "vocab_size"),
        max_length=_max_length(inner),
    )


def _max_length(config: Mapping[str, Any]) -> int:
    patch, image = lookup(config, "patch_size"), lookup(config, "image_size")
    bins = lookup(config, "num_mel_bins")
    if patch and bins:
        rows = (bins - patch) // lookup(config, "frequency_stride", default=patch) + 1
        columns = (lookup(config, "max_length") - patch) // lookup(config, "time_stride", default=patch) + 1
        return rows * columns + 2
    if patch and image:
        return (image // patch) ** 2 + 1
    length = lookup(config, "max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length")
    # a RoBERTa position table starts after the padding index
    offset = 2 if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    return max(0, length - offset)


def feature_size(config: Mapping[str, Any], backbone: Mapping[str, Stored], fallback: int) -> int:
    """Width of the vector that the backbone's pooling gives; `fallback` where the config names it.

    Convolutional networks don't: it is the width of their last convolution.
    """
    kind = config.get("model_type")
    if kind == "swin":
        depths: Sequence[int] = config.get("depths") or (2, 2, 6, 2)
        return lookup(config, "embed_dim", default=96) * int(2 ** (len(depths) - 1))
    if kind not in ("mobilenet_v1", "mobilenet_v2"):
        return fallback
    if "conv_1x1.convolution.weight" in backbone:
        return backbone["conv_1x1.convolution.weight"].shape[0]
    return max(tensor.shape[0] for tensor in backbone.values() if len(tensor.shape) == 4)
