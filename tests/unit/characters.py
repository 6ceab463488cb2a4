"""A tokenizer with one token a character, so that masks can be read off."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>"]
PAD, BOS, EOS = 0, 1, 2


def characters(**special: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer of printable ASCII and newline; BOS and EOS as `special` says."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *map(chr, range(32, 127)), "\n"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **special)


def ids_of(text: str) -> list[int]:
    """The tokens of printable `text` without BOS and EOS."""
    return [3 + ord(character) - 32 for character in text]
