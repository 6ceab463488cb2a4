"""Tiny language models of many families, a tokenizer, and the plain scores to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tlscale.evaluation.scoring.encode import Path
from tlscale.evaluation.scoring.plain import score_rows

WORDS = 300
SHAPE: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
GPT = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
MARKS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
WINDOW = 20

FAMILIES: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, **MARKS)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT, **MARKS)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED, **MARKS)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED, **MARKS, sliding_window=WINDOW)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**GROUPED, **MARKS, head_dim=8, sliding_window=WINDOW, attn_implementation="eager")
    ),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **MARKS)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SHAPE, **MARKS, ffn_dim=64, word_embed_proj_dim=32)),
}
# Their attention is not told by a mask alone: a bias by distance, a window by index, no attention at all.
WITHOUT_TREES: dict[str, Any] = {
    "bloom": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=2, n_head=4, **MARKS)
    ),
    "gpt-neo": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=WORDS,
            hidden_size=32,
            num_layers=2,
            attention_types=[[["global", "local"], 1]],
            num_heads=4,
            window_size=WINDOW,
            max_position_embeddings=512,
            **MARKS,
        )
    ),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, **MARKS)
    ),
}


@cache
def model(family: str) -> Any:
    """A model of `family` with weights large enough that a wrong mask shows."""
    torch.manual_seed(5)
    if family == "t5":
        config = T5Config(
            vocab_size=WORDS,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=2,
            eos_token_id=1,
            pad_token_id=2,
        )
        made: Any = T5ForConditionalGeneration(config)
    else:
        made = {**FAMILIES, **WITHOUT_TREES}[family]()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return made.eval()


@cache
def tokenizer() -> Any:
    """Byte-level, with merges across word boundaries, so that context + option is not context, option."""
    letters = sorted(ByteLevel.alphabet())
    marks = ["<s>", "</s>", "<pad>"]
    merges = [("a", "b"), ("Ġ", "t"), ("Ġt", "o"), ("e", "Ġ"), ("eĠ", "r"), ("ab", "e")]
    names = [*marks, *letters, *("".join(pair) for pair in merges)]
    backend = Tokenizer(BPE({name: i for i, name in enumerate(names)}, merges))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def plain(module: Any, paths: Sequence[Path]) -> np.ndarray:
    """The score of each path, computed by itself."""
    found = np.zeros(len(paths))
    for owner, path in enumerate(paths):
        start = len(path.inputs) - len(path.targets)
        got = score_rows(module, [(owner, path, start, len(path.inputs))], 1, torch.device("cpu"))
        found[owner] = got.logprobs.sum()
    return found
