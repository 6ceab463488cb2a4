"""Tiny models and data, made on the spot, saved as any checkpoint is."""

from __future__ import annotations

import json
import random
import wave
from pathlib import Path

import numpy
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

COLOURS = ("red", "green", "blue", "black")
THINGS = ("apple", "car", "house", "shirt", "river", "stone", "bird", "door")
WORDS = ["[PAD]", "[UNK]", "<s>", "</s>", "is", "the", "a", "what", "colour", "?", ":", *COLOURS, *THINGS]


def tokenizer(folder: Path) -> None:
    """A word-level tokenizer with one BOS of its own."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)


def llama(folder: Path, *, width: int = 32) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=len(WORDS), max_position_embeddings=64, bos_token_id=2,
        eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer(folder)
    return folder


def bert(folder: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(WORDS), max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer(folder)
    return folder


FILLER = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def masking_tokenizer(folder: Path) -> None:
    """A word-level tokenizer that puts texts between [CLS] and [SEP] and knows [MASK]."""
    words = [*FILLER, *(word for word in WORDS if not word.startswith(("[", "<")))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        pad_token="[PAD]", unk_token="[UNK]",
    ).save_pretrained(folder)  # fmt: skip


def masked_bert(folder: Path, *, head: bool = True, vocabulary: Path | None = None) -> Path:
    """A masked language model, or its encoder without the head; `vocabulary` has one piece a line."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(WORDS) + 1, max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    if vocabulary is not None:
        tokenizer = BertTokenizer(vocab=str(vocabulary))
        config.vocab_size = len(tokenizer)
        tokenizer.save_pretrained(folder)
    else:
        masking_tokenizer(folder)
    (BertForMaskedLM if head else BertModel)(config).save_pretrained(folder)
    return folder


def vit(folder: Path) -> Path:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8,
        patch_size=4,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder


def spectrograms(folder: Path) -> Path:
    """A model of sound that sees 16 frames (160 ms) of 16 bins."""
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_mel_bins=16,
        max_length=16, patch_size=8, frequency_stride=8, time_stride=8,
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=16, max_length=16).save_pretrained(folder)
    return folder


def tones(folder: Path, count: int = 24, *, rate: int = 8000) -> Path:
    """`folder/low` and `folder/high` with WAV files of 150 ms: a tone of 300 or 2,000 Hz, and noise."""
    generator = numpy.random.default_rng(0)
    for index in range(count):
        name, pitch = (("low", 300), ("high", 2000))[index % 2]
        time = numpy.arange(int(0.15 * rate)) / rate
        sound = numpy.sin(2 * numpy.pi * pitch * generator.uniform(0.9, 1.1) * time)
        sound = 0.5 * sound + 0.05 * generator.standard_normal(len(time))
        (folder / name).mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / name / f"{index}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes((sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return folder


def sentences(path: Path, count: int = 64, *, seed: int = 0) -> Path:
    """Rows whose label is the colour that the text names."""
    generator = random.Random(seed)
    rows = []
    for _ in range(count):
        colour, thing = generator.choice(COLOURS), generator.choice(THINGS)
        rows.append(
            {
                "text": f"the {thing} is {colour}",
                "label": colour,
                "prompt": f"the {thing} is {colour} : what colour ?",
                "completion": f" {colour}",
                "anchor": f"a {colour} {thing}",
                "positive": f"the {thing} is {colour}",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pictures(path: Path, count: int = 48) -> Path:
    """Grey images, dark or bright by their label."""
    generator = numpy.random.default_rng(0)
    labels = numpy.arange(count) % 2
    images = (generator.integers(0, 100, (count, 8, 8)) + 150 * labels[:, None, None]).astype("uint8")
    numpy.savez(path, images=images, labels=labels)
    return path
