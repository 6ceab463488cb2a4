"""Small random models with a real tokenizer, for comparisons that need no knowledge, only shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS = 32_000
MARKS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


def tokenizer(folder: Path, data: Path) -> Any:
    """Byte-level BPE of 32,000 tokens, trained on the local texts once and kept in `folder`."""
    if not (folder / "tokenizer.json").exists():
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=WORDS,
            special_tokens=["<s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        made.train_from_iterator(_texts(data), trainer)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token="<s>", eos_token="<s>", pad_token="<pad>"
        )
        fast.save_pretrained(str(folder))
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def _texts(data: Path) -> Iterator[str]:
    from benchmarks.local_tasks import hellaswag

    for row in hellaswag(data):
        yield " ".join([row["query"], *row["choices"]])
    for file in sorted((data / "wikitext2_small").glob("*.txt")):
        yield from file.read_text(encoding="utf-8").splitlines()
    for line in (data / "gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield f"{row['question']} {row['answer']}"


def llama() -> Any:
    """15.2 million parameters in the shape of llama2.c's stories15M."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        **MARKS,
    )
    return _spread(LlamaForCausalLM(config))


def gpt2() -> Any:
    """A GPT-2 of 8.4 million parameters."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=WORDS, n_embd=192, n_layer=4, n_head=4, n_positions=1024, **MARKS)
    return _spread(GPT2LMHeadModel(config))


def t5() -> Any:
    """An encoder-decoder of 5 million parameters."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=WORDS,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=3,
        num_heads=4,
        decoder_start_token_id=1,
        eos_token_id=0,
        pad_token_id=1,
    )
    return T5ForConditionalGeneration(config).eval()


def _spread(model: Any) -> Any:
    """Weights of the size of a trained model's, so that options differ by more than rounding."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.06)
    return model.eval()
