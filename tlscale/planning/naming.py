"""From the names in a checkpoint's files to the names that the loaded model has, and to canonical ones.

Canonical: the backbone's parameters without the architecture's prefix (`model.`, `bert.`), everything else
under `head.`. Families whose files still carry an older layout are renamed as transformers does on loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tlscale.planning.headers import Stored

# transformers' base_model_prefix where it is not the model type itself
PREFIXES: dict[str, str] = {
    **dict.fromkeys(
        (
            "bart cohere cohere2 deepseek_v2 deepseek_v3 exaone4 falcon_h1 gemma gemma2 gemma3_text glm "
            "glm4 granite granitemoe helium internlm2 llama mbart ministral minimax mistral mixtral "
            "modernbert nemotron olmo olmo2 olmo3 olmoe opt phi phi3 phimoe qwen2 qwen2_moe qwen3 "
            "qwen3_moe seed_oss smollm3 stablelm starcoder2"
        ).split(),
        "model",
    ),
    **dict.fromkeys("bloom codegen falcon gpt2 gpt_bigcode gpt_neo gptj mpt xlnet".split(), "transformer"),
    "camembert": "roberta",
    "deberta-v2": "deberta",
    "dinov2_with_registers": "dinov2_with_registers",
    "xlm-roberta": "roberta",
    "xlm-roberta-xl": "roberta",
}

_VIT = (
    (r"encoder\.layer\.", "layers."),
    (r"attention\.query", "q_proj"),
    (r"attention\.key", "k_proj"),
    (r"attention\.value", "v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)
_DINO = (
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
)
_SWIN = (
    (r"attention\.self\.query", "attention.q_proj"),
    (r"attention\.self\.key", "attention.k_proj"),
    (r"attention\.self\.value", "attention.v_proj"),
    (r"attention\.self\.relative_position_bias_table",
     "attention.relative_position_bias.relative_position_bias_table"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)  # fmt: skip
_LEGACY = ((r"LayerNorm\.gamma", "LayerNorm.weight"), (r"LayerNorm\.beta", "LayerNorm.bias"))

# old file names -> names in the loaded model (transformers 5.23, conversion_mapping.py)
RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "audio-spectrogram-transformer": _VIT,
    "deit": _VIT,
    "dinov2": _DINO,
    "dinov2_with_registers": _DINO,
    "gpt_neox": ((r"^embed_out\.", "lm_head."),),
    "mixtral": ((r"\.block_sparse_moe\.", ".mlp."),),
    "swin": _SWIN,
    "vit": _VIT,
}

_BUFFER = re.compile(
    r"(?:^|.*\.)(?:num_batches_tracked|running_mean|running_var|inv_freq|position_ids|token_type_ids|"
    r"masked_bias|relative_position_index|rotary_emb\.\w+)"
)
_CAUSAL_MASK = re.compile(r".*attn\.bias|.*attention\.bias")
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
_HEADS_ONLY = re.compile(
    r"(?:classifier|score|lm_head|cls|qa_outputs|pre_classifier|vocab_\w+|mlm_head|dense|embed_out|"
    r"distillation_classifier|cls_classifier|lm_loss|logits_proj)\."
)


def prefix_of(model_type: str) -> str:
    """transformers' `base_model_prefix` of the architecture: where its backbone hangs in a task model."""
    return PREFIXES.get(model_type, model_type.replace("-", "_"))


def loaded_names(model_type: str, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Parameters only (buffers left out), under the names that the loaded model gives them."""
    renames = [(re.compile(p), r) for p, r in (*RENAMES.get(model_type, ()), *_LEGACY)]
    relevant = [(p, r) for p, r in renames if any(p.search(name) for name in stored)]
    tensors: dict[str, Stored] = {}
    for name, tensor in stored.items():
        if _BUFFER.fullmatch(name) or (len(tensor.shape) == 4 and _CAUSAL_MASK.fullmatch(name)):
            continue
        for pattern, replacement in relevant:
            name = pattern.sub(replacement, name)
        tensors[name] = tensor
    return _merged_experts(tensors)


def _merged_experts(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Experts stored one by one become the stacked parameters that transformers loads them into."""
    experts: dict[str, int] = {}
    for name in tensors:
        if match := _EXPERT.fullmatch(name):
            experts[match[1]] = max(experts.get(match[1], 0), int(match[2]) + 1)
    if not experts:
        return tensors
    merged: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        match = _EXPERT.fullmatch(name)
        if match is None:
            merged[name] = tensor
            continue
        rows, columns = tensor.shape
        count = experts[match[1]]
        if match[3] in ("down_proj", "w2"):
            merged[f"{match[1]}.down_proj"] = Stored(tensor.dtype, (count, rows, columns))
        else:
            merged[f"{match[1]}.gate_up_proj"] = Stored(tensor.dtype, (count, 2 * rows, columns))
    return merged


def split(model_type: str, tensors: Mapping[str, Stored]) -> tuple[dict[str, Stored], dict[str, Stored]]:
    """Backbone and head parameters by canonical name, without and with `head.` in front.

    A checkpoint of a task model has the backbone under the prefix and heads beside it; a checkpoint of the
    backbone alone has no prefix anywhere.
    """
    start = prefix_of(model_type) + "."
    prefixed = any(name.startswith(start) for name in tensors)
    backbone: dict[str, Stored] = {}
    head: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        if name.startswith(start):
            backbone[name.removeprefix(start)] = tensor
        elif prefixed or _HEADS_ONLY.match(name):
            head["head." + name] = tensor
        else:
            backbone[name] = tensor
    return backbone, head
