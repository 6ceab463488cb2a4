"""Examples for causal language models: documents in windows, and prompts with completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlscale.data.tokens import Encoded, LossOn, Overflow, begun, encode, ended, too_long
from tlscale.data.types import Example, Made
from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import Columns, Row, text


@dataclass(frozen=True)
class Turns:
    """A text with the character spans that are to be learned.

    `answered`: a learned span ends it. `closed`: it has its own end-of-turn token there.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    prompt: str
    reference: str
    closed: bool = False
    answered: bool = True


def documents(rows: Sequence[Row], columns: Columns, tokenizer: Any, max_length: int) -> list[Made]:
    """Each document as consecutive windows of at most `max_length` tokens.

    Neighbouring windows share one token, which only the first of them learns, so that every token of
    a document but its very first is learned exactly once and nothing is cut. A document has one BOS
    and, unless it goes on elsewhere, one EOS, each if the tokenizer knows one. Blank documents give
    no example.
    """
    texts = [text(row, columns.by_role["text"]) for row in rows]
    pairs = zip(rows, texts, encode(tokenizer, texts), strict=True)
    return [_windows(row, content, found, tokenizer, max_length) for row, content, found in pairs]


def _windows(row: Row, content: str, found: Encoded, tokenizer: Any, size: int) -> Made:
    if not content.strip():
        return Made(())
    ids, loss = found.ids, [True] * len(found.ids)
    if row.ends:
        ids, loss = ended(tokenizer, ids, loss)
    plain = len(ids)
    ids, loss = begun(tokenizer, ids, loss)
    shift = len(ids) - plain
    starts = [0] * shift + found.starts + [len(content)] * (len(ids) - shift - len(found.starts))
    examples = []
    for at in range(0, len(ids) - 1, size - 1):
        window = ids[at : at + size]
        stop = starts[at + size] if at + size < len(ids) else len(content)
        examples.append(
            Example(
                where=row.where if at == 0 else f"{row.where} from token {at}",
                text=content[starts[at] : stop],
                tokens=window,
                loss=[False, *loss[at + 1 : at + size]],
                prompt_tokens=1,
            )
        )
    return Made(tuple(examples))


def completions(
    rows: Sequence[Row],
    source: Source,
    columns: Columns,
    tokenizer: Any,
    *,
    max_length: int,
    overflow: Overflow,
    loss_on: LossOn,
) -> list[Made]:
    """Prompt + completion + EOS, with loss on the completion and its EOS.

    Prompt and completion are tokenised together, as the model will read them; a token with any
    character of the completion is learned. Overlong rows lose the beginning of their prompt first
    (never BOS, and never its last token where there is no BOS), then the end of their completion.

    Raises:
        DataError: a row without completion, or without `split_at`.
    """
    turns = [_prompt_and_completion(row, source, columns) for row in rows]
    found = encode(tokenizer, [turn.text for turn in turns])
    made = []
    for row, turn, encoded in zip(rows, turns, found, strict=True):
        ids, loss = masked(turn, encoded, tokenizer)
        prompt = loss.index(True) if True in loss else len(ids)
        over = len(ids) - max_length
        if over > 0:
            too_long(row.where, len(ids), max_length, overflow)
            if overflow == "drop":
                made.append(Made(()))
                continue
            # One token stays before the completion: BOS, or else the context that its first token needs.
            head = min(over, prompt - 1)
            first = 1 if ids[:1] == [tokenizer.bos_token_id] else 0
            ids, loss = ids[:first] + ids[first + head :], loss[:first] + loss[first + head :]
            ids, loss = ids[:max_length], loss[:max_length]
            prompt -= head
        made.append(example(row, turn, ids, loss, prompt, loss_on, max(over, 0), tokenizer))
    return made


def _prompt_and_completion(row: Row, source: Source, columns: Columns) -> Turns:
    if source.split_at is not None:
        content = text(row, columns.by_role["text"])
        before, mark, completion = content.partition(source.split_at)
        if not mark:
            raise DataError(f"{row.where}: split_at {source.split_at!r} isn't in the text")
        prompt = before + mark
    else:
        prompt = text(row, columns.by_role["prompt"])
        completion = text(row, columns.by_role["completion"])
    if not completion.strip():
        raise DataError(f"{row.where}: the completion is empty; a row needs something to learn")
    joined = prompt + completion
    return Turns(joined, ((len(prompt), len(joined)),), prompt, completion)


def masked(turn: Turns, encoded: Encoded, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """The tokens of `turn` with BOS and EOS, and which of them lie in its spans."""
    loss = [any(start < end <= stop for start, stop in turn.spans) for end in encoded.ends]
    ids = encoded.ids
    if turn.answered and not turn.closed:
        ids, loss = ended(tokenizer, ids, loss)
    return begun(tokenizer, ids, loss)


def example(
    row: Row,
    turn: Turns,
    ids: list[int],
    loss: list[bool],
    prompt: int,
    loss_on: LossOn,
    cut: int,
    tokenizer: Any,
) -> Made:
    """The row's example, or none when nothing of it is learned."""
    if loss_on == "all":
        loss = [True] * len(ids)
        if ids[:1] == [tokenizer.bos_token_id]:
            loss[0] = False
    loss = [False, *loss[1:]]
    if not any(loss):
        return Made((), cut)
    return Made(
        (
            Example(
                where=row.where,
                text=turn.prompt,
                reference=turn.reference,
                tokens=ids,
                loss=loss,
                prompt_tokens=prompt,
            ),
        ),
        cut,
    )
