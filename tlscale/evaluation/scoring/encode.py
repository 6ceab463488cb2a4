"""Texts -> the token paths that are scored, cut exactly as lm-evaluation-harness cuts them.

Every distinct text is tokenized once, in batches. The rules are those of its `TemplateLM._encode_pair`,
`HFLM.tok_encode` and `get_rolling_token_windows` (lm-eval 0.4.13): blanks at the end of a context go over
to the continuation; context + continuation is tokenized as one text and the continuation's tokens are
those after as many as the context alone has; a text that spells out the beginning-of-text token gets no
second one; an empty context is that token. Encoder-decoders tokenize the two sides apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tlscale.errors import DataError

Ids = npt.NDArray[np.int32]
NO_LIMIT = 1_000_000_000_000_000_019_884_624_838_656  # what tokenizers carry that know no limit
DEFAULT_LENGTH = 2048
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Path:
    """Tokens given to the model, and the tokens whose probability is asked at the last positions.

    `inputs` [length] go in (an encoder-decoder's encoder gets them); `targets` [scored] are the next tokens
    at the last `scored` positions of `inputs` (a decoder gets them shifted). `cut` tokens of the context
    were left out at its beginning.
    """

    inputs: Ids
    targets: Ids
    cut: int = 0


def context_length(config: Any, tokenizer: Any) -> int:
    """How many tokens the model takes: from its configuration, else its tokenizer, else 2,048."""
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(text, name, None)
        if value is not None:
            return int(value)
    stated = getattr(tokenizer, "model_max_length", None)
    return DEFAULT_LENGTH if stated is None or stated >= NO_LIMIT else int(stated)


@dataclass(frozen=True)
class Cutter:
    """Cuts texts for one model; `length` is its context in tokens."""

    tokenizer: Any
    length: int
    encoder_decoder: bool = False

    @property
    def beginning(self) -> int:
        """The token that stands for an empty context.

        Raises:
            DataError: the tokenizer has neither a beginning- nor an end-of-text token.
        """
        for found in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if found is not None:
                return int(found)
        raise DataError(
            "the tokenizer has neither a beginning- nor an end-of-text token, so an empty context can't be "
            "scored; set bos_token or eos_token in its tokenizer_config.json"
        )

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Path]:
        """The path of each (context, continuation).

        Raises:
            DataError: a continuation has no tokens, or more than the model's context holds.
        """
        moved = [_move_blanks(context, continuation) for context, continuation in pairs]
        whole: list[str] = []
        bare: list[str] = []
        for context, continuation in moved:
            if context is None or self.encoder_decoder:
                bare.append(continuation)
            if context is not None:
                whole.append(context)
                if not self.encoder_decoder:
                    whole.append(context + continuation)
        texts, ends = self.encode(whole), self.encode(bare, special=False)
        found = []
        for context, continuation in moved:
            before, after = self._sides(context, continuation, texts, ends)
            if not len(after):
                told = (context or "")[-SHOWN:]
                raise DataError(
                    f"an option or continuation has no tokens: {continuation[:SHOWN]!r} after {told!r}; "
                    "every option needs at least one character that the tokenizer keeps"
                )
            if len(after) > self.length:
                raise DataError(
                    f"an option or continuation has {len(after):,} tokens, but the model's context holds "
                    f"{self.length:,}: {continuation[:SHOWN]!r}..."
                )
            found.append(self._path(before, after))
        return found

    def _sides(
        self, context: str | None, continuation: str, texts: dict[str, Ids], ends: dict[str, Ids]
    ) -> tuple[Ids, Ids]:
        if context is None:
            after = ends[continuation]
            if len(after) and after[0] == self.beginning:
                return after[:1], after[1:]
            return np.asarray([self.beginning], np.int32), after
        before = texts[context]
        if not len(before):
            return np.asarray([self.beginning], np.int32), texts[context + continuation]
        if self.encoder_decoder:
            return before, ends[continuation]
        return before, texts[context + continuation][len(before) :]

    def _path(self, before: Ids, after: Ids) -> Path:
        if self.encoder_decoder:
            return Path(before[-self.length :], after, max(0, len(before) - self.length))
        whole = np.concatenate([before, after])
        cut = max(0, len(whole) - self.length - 1)
        return Path(whole[cut:-1], after, cut)

    def rolling(self, texts: Sequence[str]) -> list[list[Path]]:
        """Each text's windows; together they score every token once, with as much context as fits."""
        tokens = self.encode(texts)
        return [[self._window(*pair) for pair in self._windows(tokens[text])] for text in texts]

    def _windows(self, tokens: Ids) -> Iterable[tuple[Ids, Ids]]:
        if not len(tokens):
            return
        first = tokens[: self.length]
        yield np.concatenate([np.asarray([self.beginning], np.int32), first[:-1]]), first
        done = len(first)
        while done < len(tokens):
            end = done + min(len(tokens) - done, self.length)
            yield tokens[max(0, end - self.length - 1) : end - 1], tokens[done:end]
            done = end

    def _window(self, inputs: Ids, targets: Ids) -> Path:
        if self.encoder_decoder:
            return Path(inputs[: len(inputs) - len(targets) + 1], targets)
        return Path(inputs, targets)

    def contexts(self, texts: Sequence[str], room: Sequence[int]) -> list[Path]:
        """Paths of contexts that are continued by up to `room` tokens each; nothing is scored."""
        tokens = self.encode(texts)
        nothing = np.zeros(0, np.int32)
        found = []
        for text, more in zip(texts, room, strict=True):
            ids = tokens[text] if text else np.asarray([self.beginning], np.int32)
            limit = self.length if self.encoder_decoder else self.length - more
            if limit < 1:
                raise DataError(
                    f"max_new_tokens is {more:,}, but the model's context holds {self.length:,} tokens; "
                    f"allow at most {self.length - 1:,}"
                )
            found.append(Path(ids[-limit:], nothing, max(0, len(ids) - limit)))
        return found

    def encode(self, texts: Iterable[str], special: bool = True) -> dict[str, Ids]:
        """The tokens of every distinct text, with special tokens unless it spells one out itself."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        opening = ""
        if special and any(
            i is not None for i in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        ):
            opening = self.tokenizer.decode(self.beginning)
        found: dict[str, Ids] = {}
        for add in (True, False):
            group = [t for t in distinct if (special and not (opening and t.startswith(opening))) is add]
            if group:
                ids = self.tokenizer(group, add_special_tokens=add, verbose=False)["input_ids"]
                found.update(
                    (text, np.asarray(row, np.int32)) for text, row in zip(group, ids, strict=True)
                )
        return found


def _move_blanks(context: str, continuation: str) -> tuple[str | None, str]:
    """Blanks at the context's end go over to the continuation; None for a context that was empty before."""
    kept = context.rstrip()
    return (kept if context else None), context[len(kept) :] + continuation
