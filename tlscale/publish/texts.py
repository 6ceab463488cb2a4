"""The texts that come with an adapter, before anything shows or follows them.

Each function takes what a file holds and yields the reasons to refuse it. A card is refused for what a
browser would run, a tokenizer's config for what a loader would import or read, a chat template for what
reaches from it into Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from tlscale.recipe.parse import parse_yaml

# What a page may not hold: elements that run or load something, and links that do.
ACTIVE = re.compile(
    r"<\s{0,9}/?(script|iframe|frame|frameset|object|embed|applet)\b"
    r"|(href|src|action)\s{0,9}=\s{0,9}[\"']?\s{0,9}(javascript|vbscript|data:text)"
    r"|\]\(\s{0,9}<?(javascript|vbscript|data:text)",
    re.IGNORECASE,
)
# A tag to its end, with all that quotes may hide of it.
TAG = re.compile(r"<[A-Za-z](?:[^'\">]|'[^']*'|\"[^\"]*\"|['\"])*")
EVENT = re.compile(r"[\s/\"']on[a-z]{3,30}\s{0,9}=", re.IGNORECASE)
FENCED = re.compile(r"^(```|~~~).*?^\1[`~]*\s*$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`[^`\n]+`")
# Within a block of HTML a fence is none, so that what stands between two of them is live.
MARKUP = re.compile(r"^[ \t>*+\-0-9.)]*<[A-Za-z/?]", re.MULTILINE)
INSIDES = re.compile(r"__\w+__|\|\s*attr\b|\battr\s*\(")
SHOWN = 60


def card_problems(text: str) -> Iterator[str]:
    """What is wrong with a card: metadata that are no small plain YAML, and what a browser would run."""
    head, found, rest = text.partition("---\n")
    if found and not head.strip():
        try:
            parse_yaml(rest.partition("\n---")[0])
        except (yaml.YAMLError, RecursionError) as error:
            yield f"its metadata can't be read: {' '.join(str(error).split())[:200]}"
    unquoted = QUOTED.sub("", FENCED.sub("", text))
    shown = text if MARKUP.search(unquoted) else unquoted
    live = [found[0] for found in (ACTIVE.search(shown),) if found is not None]
    live += [found[0] for tag in TAG.findall(shown) for found in (EVENT.search(tag),) if found is not None]
    for one in live[:1]:
        what = " ".join(shown[shown.index(one) :][:SHOWN].split())
        yield f"holds {what!r}, which a page that shows the card could run"


def tokenizer_problems(said: Any) -> Iterator[str]:
    """What in a tokenizer's config asks for code or for files that are not beside it."""
    if not isinstance(said, dict):
        yield "not a tokenizer's config"
        return
    if said.get("auto_map"):
        yield "auto_map asks for Python code from the repository, and none is run"
    named = said.get("tokenizer_class")
    if named is not None and not (isinstance(named, str) and named.isidentifier()):
        yield f"tokenizer_class is {named!r:.80}, not the name of a class"
    for key, value in said.items():
        if key.endswith("_file") and isinstance(value, str) and ("/" in value or "\\" in value):
            yield f"{key} names a place, {value!r:.80}, and only files beside it are read"
    template = said.get("chat_template")
    for one in template if isinstance(template, list) else [template]:
        text = one.get("template") if isinstance(one, dict) else one
        yield from template_problems(text) if isinstance(text, str) else ()


def template_problems(text: str) -> Iterable[str]:
    """What in a chat template is no templating."""
    found = INSIDES.search(text)
    if found is not None:
        yield f"the chat template reaches for Python's insides ({found[0]!r})"
