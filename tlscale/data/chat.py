"""Chat messages through the model's own template, with the loss on what the assistant says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlscale.data.language import Turns, example, masked
from tlscale.data.tokens import LossOn, Overflow, encode, too_long
from tlscale.data.types import Made
from tlscale.errors import DataError
from tlscale.sources import Columns, Row, value
from tlscale.sources.rows import describe


def conversations(
    rows: Sequence[Row],
    columns: Columns,
    tokenizer: Any,
    *,
    max_length: int,
    overflow: Overflow,
    loss_on: LossOn,
) -> list[Made]:
    """Each conversation as its template renders it, learned where the assistant speaks.

    The token that ends an assistant's turn is learned too; a template without one gets the
    tokenizer's EOS behind a last turn of the assistant. Overlong conversations lose their end.

    Raises:
        DataError: no template, messages that it refuses, or a template that rewrites earlier turns.
    """
    if not tokenizer.chat_template:
        raise DataError(
            f"{tokenizer.name_or_path} has no chat template; name a Jinja file in model.chat_template"
        )
    ends = _turn_ends(tokenizer)
    turns = [_render(row, messages_of(row, columns), tokenizer, ends) for row in rows]
    made = []
    for row, turn, encoded in zip(rows, turns, encode(tokenizer, [t.text for t in turns]), strict=True):
        ids, loss = masked(turn, encoded, tokenizer)
        prompt = loss.index(True) if True in loss else len(ids)
        over = max(0, len(ids) - max_length)
        if over:
            too_long(row.where, len(ids), max_length, overflow)
            if overflow == "drop":
                made.append(Made(()))
                continue
        # Cut before loss_on is applied: a conversation whose answers were all cut away teaches nothing.
        ids, loss = ids[:max_length], loss[:max_length]
        if not any(loss):
            made.append(Made((), over))
            continue
        made.append(example(row, turn, ids, loss, prompt, loss_on, over, tokenizer))
    return made


def _turn_ends(tokenizer: Any) -> tuple[str, ...]:
    """Every added token of the vocabulary: with one of these a template may end a turn."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    return tuple(sorted(added | set(tokenizer.all_special_tokens)))


def messages_of(row: Row, columns: Columns) -> list[dict[str, Any]]:
    """The row's messages, each with a role and a content.

    Raises:
        DataError: there is no list of such messages.
    """
    found = value(row, columns.by_role["messages"])
    if not isinstance(found, list) or not found:
        raise DataError(f"{row.where}: messages is {describe(found)}; a list of role and content is needed")
    for i, message in enumerate(found):
        keys = sorted(message) if isinstance(message, dict) else []
        if "role" not in keys or "content" not in keys:
            told = ", ".join(keys) if keys else describe(message)
            raise DataError(f"{row.where}: messages[{i}] has {told}; role and content are needed")
        if not isinstance(message["role"], str) or not isinstance(message["content"], str):
            raise DataError(f"{row.where}: messages[{i}]: role and content must be text, not null or parts")
        if message["role"] == "assistant" and not message["content"].strip():
            raise DataError(f"{row.where}: messages[{i}]: the assistant's content is empty")
    return found


def _render(row: Row, messages: list[dict[str, Any]], tokenizer: Any, ends: tuple[str, ...]) -> Turns:
    """The conversation's text and the spans in it that the assistant says.

    They are found by rendering the conversation before and after each of its turns.
    """
    spans: list[tuple[int, int]] = []
    rendered, closed, prompt, reference = "", False, None, ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = apply_template(row, tokenizer, messages[:i], False) if i else ""
        asked = apply_template(row, tokenizer, messages[:i], True) if i else ""
        answered = apply_template(row, tokenizer, messages[: i + 1], False)
        for earlier, later, last in (
            (rendered, before, i - 1),
            (before, asked, i - 1),
            (before, answered, i),
        ):
            _assert_extends(row, earlier, later, last)
        # A template may open the turn otherwise when asked to generate; what both share is no answer.
        start = _shared(asked, answered)
        stop, closed = _turn_end(answered, start, ends)
        spans.append((start, stop))
        if prompt is None:
            prompt, reference = answered[:start], message["content"]
        rendered = answered
    full = apply_template(row, tokenizer, messages, False)
    _assert_extends(row, rendered, full, len(messages) - 1)
    answered_last = bool(spans) and messages[-1]["role"] == "assistant"
    return Turns(full, tuple(spans), full if prompt is None else prompt, reference, closed, answered_last)


def _turn_end(text: str, start: int, ends: tuple[str, ...]) -> tuple[int, bool]:
    """Where the turn from `start` to the end of `text` is over, and whether a token says so.

    Behind an end-of-turn token only the template's white space follows, which nobody has to learn.
    """
    bare = text.rstrip()
    if len(bare) > start and bare.endswith(ends):
        return len(bare), True
    return len(text), False


def apply_template(row: Row, tokenizer: Any, messages: list[dict[str, Any]], asking: bool) -> str:
    """The text of `messages`; `asking` opens a turn of the assistant behind them.

    Raises:
        DataError: the template refuses them.
    """
    from jinja2.exceptions import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asking))
    except (TemplateError, ValueError, TypeError) as error:
        raise DataError(
            f"{row.where}: the chat template refuses the first {len(messages)} messages: {error}"
        ) from error


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    if other.startswith(one):
        return len(one)
    return next(i for i, (a, b) in enumerate(zip(f"{one}\0", f"{other}\0", strict=False)) if a != b)


def _assert_extends(row: Row, before: str, after: str, turn: int) -> None:
    if not after.startswith(before):
        at = _shared(before, after)
        raise DataError(
            f"{row.where}: the chat template rewrites earlier turns when messages[{turn}] is added: "
            f"{before[at : at + 40]!r} becomes {after[at : at + 40]!r}, so what the assistant said can't "
            "be told; name another template in model.chat_template"
        )
