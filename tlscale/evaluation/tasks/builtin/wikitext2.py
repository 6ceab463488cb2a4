"""WikiText-2, test: perplexity of whole articles (Merity et al. 2016, arXiv:1609.07843)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.evaluation.tasks.rows import lines_of
from tlscale.evaluation.tasks.task import Document, Rows, Task

TITLE = re.compile(r"^ = [^=].*[^=] = $")
# The data set's own marks for hyphens, commas and points inside words and numbers.
JOINED = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."))


def articles(path: Path) -> Iterator[Mapping[str, Any]]:
    """The articles of a file, each from its title to the next."""
    article: list[str] = []
    for line in lines_of(path):
        if TITLE.match(line) and any(one.strip() for one in article):
            yield {"page": "\n".join(article)}
            article = []
        article.append(line)
    if any(one.strip() for one in article):
        yield {"page": "\n".join(article)}


def document(row: Mapping[str, Any]) -> Document:
    text = str(row["page"])
    for mark, plain in JOINED:
        text = text.replace(mark, plain)
    return Document(text=text)


TASK = Task(
    name="wikitext2",
    summary="perplexity of Wikipedia articles",
    kind="rolling",
    test=(
        Rows(path="wikitext2_small/test.txt", reader=articles),
        Rows(hub="EleutherAI/wikitext_document_level", name="wikitext-2-raw-v1", split="test"),
    ),
    document=document,
    metrics=("word_perplexity", "byte_perplexity", "bits_per_byte"),
)
