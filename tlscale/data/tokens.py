"""Text to tokens with the characters each came from, and the rules for BOS, EOS and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tlscale.errors import DataError

Overflow = Literal["cut", "drop", "error"]
LossOn = Literal["completion", "all"]


@dataclass(frozen=True)
class Encoded:
    """Token `ids` of a text without added special tokens; token i stands for text[starts[i]:ends[i]]."""

    ids: list[int]
    starts: list[int]
    ends: list[int]


def encode(tokenizer: Any, texts: Sequence[str]) -> list[Encoded]:
    """Tokens of each text as it stands: nothing added, nothing cut.

    Raises:
        DataError: the tokenizer can't tell which characters a token came from.
    """
    if not texts:
        return []
    if not tokenizer.is_fast:
        raise DataError(
            f"{tokenizer.name_or_path}: the tokenizer ({type(tokenizer).__name__}) can't map tokens to "
            "characters, which masking needs; use a model with a tokenizer.json"
        )
    found = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    return [
        Encoded(list(ids), [start for start, _ in spans], [end for _, end in spans])
        for ids, spans in zip(found["input_ids"], found["offset_mapping"], strict=True)
    ]


def begun(tokenizer: Any, ids: list[int], loss: list[bool]) -> tuple[list[int], list[bool]]:
    """`ids` with exactly one BOS in front, if the tokenizer has one; the first token has no loss."""
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos]:
        return [bos, *ids], [False, *loss]
    return ids, [False, *loss[1:]]


def ended(tokenizer: Any, ids: list[int], loss: list[bool]) -> tuple[list[int], list[bool]]:
    """`ids` with a learned EOS at the end, if the tokenizer has one; never two."""
    eos = tokenizer.eos_token_id
    if eos is None:
        return ids, loss
    if ids[-1:] == [eos]:
        return ids, [*loss[:-1], True]
    return [*ids, eos], [*loss, True]


def too_long(where: str, length: int, max_length: int, overflow: Overflow) -> None:
    """Refuses an overlong row where the recipe says so.

    Raises:
        DataError: `overflow` is "error".
    """
    if overflow == "error":
        raise DataError(
            f"{where}: {length} tokens, but data.max_length is {max_length} and data.overflow is error; "
            "raise max_length, or let overflow be cut or drop"
        )
