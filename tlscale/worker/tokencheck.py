"""What tokens tell of the data: cut rows, unlearned ends, special tokens in texts, unknown words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tlscale.data.examples import Example, Prepared, PrepareReport, prepare
from tlscale.data.tokens import Overflow, encode
from tlscale.planning.types import Plan
from tlscale.recipe.types import WITHOUT_TEXT, Source
from tlscale.sources import map_columns, place
from tlscale.sources.doctor import Finding, Severity
from tlscale.sources.doctor.finding import Kind, finding
from tlscale.sources.roles import Rows
from tlscale.worker.examples import thinned

# More rows are sampled evenly; a picture is worth a hundred rows of text.
MOST_ROWS, MOST_IMAGES = 5_000, 200
# Far beyond every context, so that lengths before cutting can be told.
_ENDLESS = 1 << 30
_CUT_SHARE, _UNKNOWN_SHARE, _MOST_UNKNOWN = 0.05, 0.01, 0.5
_WORDS_LOOKED_AT, _WORDS_SHOWN = 200, 5


@dataclass(frozen=True)
class Looked:
    """One role as the model gets it: `rows` of `total` were prepared into `examples`."""

    role: str
    source: Source
    form: str
    total: int
    rows: Rows
    examples: tuple[Example, ...]
    report: PrepareReport


def look(plan: Plan, processor: Any, role: str, source: Source, rows: Rows) -> Looked:
    """Prepares `rows`, or evenly spaced ones of many.

    Raises:
        DataError: as `prepare`.
    """
    images = plan.recipe.model.task in WITHOUT_TEXT
    chosen = thinned(rows, MOST_IMAGES if images else MOST_ROWS)
    made = _prepared(
        plan, processor, source, chosen, max_length=plan.max_length, overflow=plan.recipe.data.overflow
    )
    form = map_columns(source, tuple(chosen[0].values)).format
    return Looked(role, source, form, len(rows), chosen, made.examples, made.report)


def _prepared(
    plan: Plan, processor: Any, source: Source, rows: Rows, *, max_length: int, overflow: Overflow
) -> Prepared:
    return prepare(
        rows,
        source,
        task=plan.recipe.model.task,
        processor=processor,
        labels=plan.facts.labels,
        max_length=max_length,
        overflow=overflow,
        loss_on=plan.recipe.data.loss_on,
    )


def unknown(processor: Any, looked: Looked) -> tuple[int, int]:
    """How many tokens are the unknown one, of how many."""
    unk = getattr(processor, "unk_token_id", None)
    tokens = [token for example in looked.examples for token in (example.tokens or [])]
    return (tokens.count(unk) if unk is not None else 0), len(tokens)


def findings(plan: Plan, processor: Any, looked: Looked) -> list[Finding]:
    """All that the tokens of one role tell."""
    if plan.recipe.model.task in WITHOUT_TEXT:
        return []
    return [
        *_losses(plan, processor, looked),
        *_ends(processor, looked),
        *_unknowns(processor, looked),
        *_template(processor, looked),
    ]


def _losses(plan: Plan, processor: Any, looked: Looked) -> list[Finding]:
    """Rows cut, rows dropped, and rows that teach nothing."""
    report, total, found = looked.report, len(looked.rows), []
    full = _uncut(plan, processor, looked) if report.cut_rows or report.dropped_rows else {}
    longer = [row.where for row in looked.rows if full.get(row.where, 0) > plan.max_length]
    drops = plan.recipe.data.overflow == "drop"
    severity: Severity
    if longer:
        lost = sum(full[where] - plan.max_length for where in longer)
        action = "dropped" if drops else f"cut, {lost:,} tokens lost"
        problem = f"longer than {plan.max_length:,} tokens, the longest {max(full.values()):,}: {action}"
        severity = "warning" if len(longer) > _CUT_SHARE * total else "note"
        kind = Kind(severity, "truncation", problem, "raise data.max_length, or set data.overflow")
        found.append(finding(kind, looked.role, longer, total))
    kept = {example.where.partition(" from token ")[0] for example in looked.examples}
    dropped = set(longer) if drops else set()
    silent = [row.where for row in looked.rows if row.where not in kept and row.where not in dropped]
    if silent:
        fix = "such rows give no example; is the answer empty, or cut away with the end of a long row?"
        severity = "error" if len(silent) == total else "warning"
        kind = Kind(severity, "unsupervised", "no token is trained on", fix)
        found.append(finding(kind, looked.role, silent, total))
    if looked.form == "prompt-completion" and longer:
        cut = set(longer)
        bare = [e.where for e in looked.examples if e.where in cut and e.prompt_tokens <= 1]
        if bare:
            fix = "such completions are learned without their question; set data.overflow=drop"
            kind = Kind("warning", "prompt-lost", "nothing of the prompt is left after cutting", fix)
            found.append(finding(kind, looked.role, bare, total))
    return found


def _uncut(plan: Plan, processor: Any, looked: Looked) -> dict[str, int]:
    """The length in tokens of each row before anything is cut, by its place."""
    if looked.form == "text":
        return {}
    whole = _prepared(plan, processor, looked.source, looked.rows, max_length=_ENDLESS, overflow="cut")
    return {e.where: max(len(e.tokens or ()), len(e.pair or ())) for e in whole.examples}


def _ends(processor: Any, looked: Looked) -> list[Finding]:
    """Two BOS in a row, special tokens inside of texts, and ends that are not learned."""
    bos, eos = getattr(processor, "bos_token_id", None), getattr(processor, "eos_token_id", None)
    special = set(getattr(processor, "all_special_ids", ())) - {getattr(processor, "unk_token_id", None)}
    added = set(getattr(processor, "added_tokens_decoder", ()))
    total, found = len(looked.examples), []
    double = [e.where for e in looked.examples if bos is not None and (e.tokens or [])[:2] == [bos, bos]]
    if double:
        kind = Kind("warning", "double-bos", "two BOS tokens at the beginning", "remove it from the text")
        found.append(finding(kind, looked.role, double, total))
    if looked.form != "messages":
        inside = [e.where for e in looked.examples if special & set((e.tokens or [])[2:-2])]
        if inside:
            fix = "the text spells them out; remove them, or use messages with a chat template"
            kind = Kind("warning", "special-token", "special tokens in the middle of a text", fix)
            found.append(finding(kind, looked.role, inside, total))
    if looked.form in ("prompt-completion", "messages"):
        endless = [e.where for e in looked.examples if not _learns_end(e, {eos} | added)]
        if endless:
            fix = (
                "the tokenizer has no EOS" if eos is None
                else "their end was cut away; raise data.max_length" if looked.form == "prompt-completion"
                else "the chat template doesn't end turns with a token, or the end was cut away"
            )  # fmt: skip
            kind = Kind("warning", "eos", "no end token is trained on: they don't teach to stop", fix)
            found.append(finding(kind, looked.role, endless, total))
    return found


def _learns_end(example: Example, ends: set[int | None]) -> bool:
    """Whether the last learned token is one that ends a turn."""
    learned = [t for t, on in zip(example.tokens or (), example.loss or (), strict=True) if on]
    return bool(learned) and learned[-1] in ends


def _unknowns(processor: Any, looked: Looked) -> list[Finding]:
    count, tokens = unknown(processor, looked)
    if not tokens or count <= _UNKNOWN_SHARE * tokens:
        return []
    unk = processor.unk_token_id
    where = [e.where for e in looked.examples if unk in (e.tokens or ())]
    words = _unknown_words(processor, looked)
    kind = Kind(
        "error" if count > _MOST_UNKNOWN * tokens else "warning",
        "unknown-tokens",
        f"{count / tokens:.1%} of the tokens are unknown to the model's vocabulary",
        f"for example {', '.join(map(repr, words))}; is it the right language and model?",
    )
    return [finding(kind, looked.role, where, len(looked.examples))]


def _unknown_words(processor: Any, looked: Looked) -> list[str]:
    texts = [e.text or e.reference for e in looked.examples[:_WORDS_LOOKED_AT]]
    words: dict[str, None] = {}
    for text, encoded in zip(texts, encode(processor, texts), strict=True):
        for token, start, end in zip(encoded.ids, encoded.starts, encoded.ends, strict=True):
            if token == processor.unk_token_id:
                words[text[start:end]] = None
    return list(words)[:_WORDS_SHOWN]


def _template(processor: Any, looked: Looked) -> list[Finding]:
    if looked.form != "messages" or "generation %}" in str(processor.chat_template):
        return []
    text = (
        f"{place(looked.source)}: the chat template has no generation marks; what the assistant says was "
        "found by rendering turn by turn, look at the examples once"
    )
    return [Finding("note", looked.role, looked.rows[0].where, "template-marks", text)]
