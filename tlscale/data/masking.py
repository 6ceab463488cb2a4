"""Examples for masked language models: documents and patterns, and which of their tokens are hidden.

As Devlin et al. 2019 (arXiv:1810.04805): of the tokens that are to be found again, 80 % are replaced by the
mask, 10 % by a random token, and 10 % stay. They are drawn anew in every epoch (Liu et al. 2019,
arXiv:1907.11692), by the seed, the epoch and the row's number alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlscale.data.tokens import Overflow, encode, too_long
from tlscale.data.types import Example, Made
from tlscale.data.varying import Vary
from tlscale.errors import DataError, PlanError, unknown
from tlscale.recipe.masking import Masking
from tlscale.recipe.types import Source
from tlscale.sources import Columns, Row, place, text
from tlscale.sources.rows import PLACE, label

MASKED, REPLACED = 0.8, 0.1
# how tokenizers mark a piece that goes on with a word, or one that begins a word
GOES_ON, BEGINS = "##", ("\u0120", "\u2581")


@dataclass(frozen=True)
class Hiding:
    """How tokens of one vocabulary are hidden.

    `ordinary` are the ids that may stand in for a hidden token; `goes_on` those that belong to the word
    before them, where whole words are hidden.
    """

    mask_id: int
    ordinary: tuple[int, ...]
    rate: float
    goes_on: frozenset[int] = frozenset()

    def by(self, name: str) -> Vary:
        """The function that hides tokens, drawn by `name`, the epoch and the example's number."""

        def vary(example: Example, epoch: int, number: int) -> Example:
            draw = random.Random(f"{name}: what is hidden of row {number} in epoch {epoch}")
            return hidden(example, self, draw)

        return vary


def hiding(tokenizer: Any, asked: Masking) -> Hiding:
    """How `asked` hides tokens of the tokenizer's vocabulary.

    Raises:
        PlanError: it has no mask token, or doesn't tell where words begin.
    """
    if tokenizer.mask_token_id is None:
        raise PlanError(
            f"{tokenizer.name_or_path}: its tokenizer has no mask token, so nothing can be hidden; give a "
            "masked language model, or model.task: causal-lm"
        )
    special = set(tokenizer.all_special_ids)
    ordinary = tuple(token for token in range(len(tokenizer)) if token not in special)
    goes_on = _going_on(tokenizer, ordinary) if asked.whole_words else frozenset[int]()
    return Hiding(int(tokenizer.mask_token_id), ordinary, asked.rate, goes_on)


def _going_on(tokenizer: Any, ordinary: Sequence[int]) -> frozenset[int]:
    names = dict(zip(ordinary, tokenizer.convert_ids_to_tokens(list(ordinary)), strict=True))
    marked = frozenset(token for token, name in names.items() if name.startswith(GOES_ON))
    if marked:
        return marked
    begun = frozenset(token for token, name in names.items() if name.startswith(BEGINS))
    if not begun:
        raise PlanError(
            "data.masking.whole_words: the tokenizer doesn't mark where words begin; leave it out"
        )
    return frozenset(names) - begun


def hidden(example: Example, how: Hiding, draw: random.Random) -> Example:
    """`example` with some of the tokens that may be hidden in `shown`, and `loss` at just those.

    A share `how.rate` of them, rounded, and at least one; of whole words, as many as fit.
    """
    if example.shown is not None:
        return example
    assert example.tokens is not None, f"{example.where}: prepared for another task"
    assert example.loss is not None, f"{example.where}: prepared for another task"
    words: list[list[int]] = []
    for at, may in enumerate(example.loss):
        if may and words and example.tokens[at] in how.goes_on and words[-1][-1] == at - 1:
            words[-1].append(at)
        elif may:
            words.append([at])
    most = max(1, round(how.rate * sum(map(len, words))))
    draw.shuffle(words)
    chosen: list[int] = []
    for word in words:
        if not chosen or len(chosen) + len(word) <= most:
            chosen += word
    shown = list(example.tokens)
    for at in sorted(chosen):
        chance = draw.random()
        if chance < MASKED:
            shown[at] = how.mask_id
        elif chance < MASKED + REPLACED:
            shown[at] = draw.choice(how.ordinary)
    learned = set(chosen)
    return replace(example, shown=shown, loss=[at in learned for at in range(len(shown))])


def documents(rows: Sequence[Row], columns: Columns, tokenizer: Any, max_length: int) -> list[Made]:
    """Each document as consecutive windows of at most `max_length` tokens, special ones included.

    Every token of a document is in one window, so nothing is cut. `loss` says what may be hidden: all but
    special tokens, and never a window's last token. Blank documents give no example.

    Raises:
        DataError: `max_length` leaves no room beside the special tokens.
    """
    texts = [text(row, columns.by_role["text"]) for row in rows]
    before, after = surroundings(tokenizer)
    room = max_length - len(before) - len(after)
    if room < 1:
        raise DataError(
            f"data.max_length: {max_length} tokens leave no room for a text beside the model's "
            f"{len(before) + len(after)} special ones"
        )
    made = []
    for row, content, found in zip(rows, texts, encode(tokenizer, texts), strict=True):
        windows = []
        for at in range(0, len(found.ids) if content.strip() else 0, room):
            ids = found.ids[at : at + room]
            stop = found.starts[at + room] if at + room < len(found.ids) else len(content)
            tokens = [*before, *ids, *after]
            loss = [False] * len(before) + [True] * len(ids) + [False] * len(after)
            loss[-1] = False
            where = row.where if at == 0 else f"{row.where} from token {at}"
            if any(loss):
                part = content[found.starts[at] : stop]
                windows.append(Example(where=where, text=part, tokens=tokens, loss=loss))
        made.append(Made(tuple(windows)))
    return made


def surroundings(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    at = next(at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
    return whole[:at], whole[at + len(plain) :]


def patterns(
    rows: Sequence[Row],
    source: Source,
    columns: Columns,
    tokenizer: Any,
    *,
    max_length: int,
    overflow: Overflow,
) -> list[Made]:
    """Patterns with one word hidden (Schick and Schuetze 2021, arXiv:2001.07676).

    The prompt has `{mask}` once, and the completion is the word there, or `source.words` has it by the
    completion. `tokens` are the pattern with the word, `shown` those with the mask. Of an overlong row the
    end is cut, or the beginning where the mask is near the end.

    Raises:
        DataError: no mask or several, a word that is not one token, or one that is there for two answers.
    """
    before, after = surroundings(tokenizer)
    room = max_length - len(before) - len(after)
    known: dict[int, str] = {}
    made = []
    for row in rows:
        prompt, word = text(row, columns.by_role["prompt"]), _word(row, source, columns)
        ids, shown, at = _filled(row, prompt, word, tokenizer)
        if known.setdefault(ids[at], word) != word:
            raise DataError(
                f"{place(source)}: {known[ids[at]]!r} and {word!r} are one token to the model, so it can't "
                "tell them apart; choose another word"
            )
        over = len(ids) - room
        if over > 0:
            too_long(row.where, len(ids) + len(before) + len(after), max_length, overflow)
            if overflow == "drop":
                made.append(Made(()))
                continue
            start = 0 if at < room else min(over, at)
            ids, shown, at = ids[start : start + room], shown[start : start + room], at - start
        loss = [False] * (len(before) + len(ids) + len(after))
        loss[len(before) + at] = True
        one = Example(
            where=row.where, text=prompt, reference=word, tokens=[*before, *ids, *after], loss=loss,
            shown=[*before, *shown, *after],
        )  # fmt: skip
        made.append(Made((one,), max(over, 0)))
    return made


def _word(row: Row, source: Source, columns: Columns) -> str:
    given = label(row, columns.by_role["completion"])
    if source.words is None:
        return given.strip()
    if given not in source.words:
        raise DataError(f"{row.where}: {unknown(given, source.words, 'value that words has')}")
    return source.words[given]


def _filled(row: Row, prompt: str, word: str, tokenizer: Any) -> tuple[list[int], list[int], int]:
    """The pattern's tokens with the word and with the mask, and the place where they differ."""
    if prompt.count(PLACE) != 1:
        raise DataError(
            f"{row.where}: the pattern has {PLACE} {prompt.count(PLACE)} times; it needs it once, in the "
            "word's place"
        )
    texts = [prompt.replace(PLACE, filler) for filler in (word, tokenizer.mask_token)]
    filled, shown = (found.ids for found in encode(tokenizer, texts))
    at = shown.index(tokenizer.mask_token_id) if tokenizer.mask_token_id in shown else -1
    if [*shown[:at], *shown[at + 1 :]] != [*filled[:at], *filled[at + 1 :]]:
        raise DataError(
            f"{row.where}: {word!r} is not one token here but {len(filled) - len(shown) + 1}, and a mask "
            "stands for one; choose another word"
        )
    if filled[at] == tokenizer.unk_token_id:
        raise DataError(f"{row.where}: the tokenizer doesn't know {word!r}; choose another word")
    return filled, shown, at


def verbalizer(example: Example) -> int | None:
    """The token in a pattern's mask; `None` of an example that is no pattern."""
    if not example.reference or example.loss is None or example.tokens is None:
        return None
    return example.tokens[example.loss.index(True)]
