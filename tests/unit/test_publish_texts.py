"""What is refused in cards, tokenizers and templates from elsewhere, and what is let in."""

from __future__ import annotations

from typing import Any

import pytest

from tlscale.publish import texts


@pytest.mark.parametrize(
    "card",
    [
        "# a\n\n<!-- a comment -->\n<base model> and <p align=center><img src='a.png' width=3></p>\n",
        "---\nlicense: mit\n---\nLike this:\n\n```html\n<script>run()</script>\n```\nor `<script>`.\n",
        "an event such as onclick=3 in words; 1 < 2 onload=4\n",
    ],
)
def test_an_ordinary_card_is_let_in(card: str) -> None:
    assert list(texts.card_problems(card)) == []


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("<script>run()</script>", "'<script>run()"),
        ("<div>\n```\n<script>run()</script>\n```\n", "'<script>run()"),
        ("- <div>\n```\n<script>run()</script>\n```\n", "'<script>run()"),
        ("<IMG SRC=x\nONERROR = run()>", "ONERROR"),
        ("<img title='>' onerror=run()>", "onerror"),
        ("<img title='<' onerror=run()>", "onerror"),
        ("[all](javascript:run())", "javascript:run"),
        ("<a href='javascript:run()'>", "javascript:run"),
        ("---\na: 1\na: 2\n---\n", "written twice"),
        ("---\na: !!python/name:os.system\n---\n", "metadata can't be read"),
    ],
)
def test_what_a_page_could_run_is_named(card: str, said: str) -> None:
    assert said in " ".join(texts.card_problems(card))


@pytest.mark.parametrize("unit", ["<", "<a ", "`", "```\n", "<a on", "- ", " ", "[](", "href= "])
def test_no_card_takes_for_ever(unit: str) -> None:
    """A megabyte of what its patterns begin with; in quadratic time this would not end in an hour."""
    assert not any("could run" in one for one in texts.card_problems(unit * (1_000_000 // len(unit))))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"auto_map": {"AutoTokenizer": ["a.B", None]}}, "asks for Python code"),
        ({"tokenizer_class": "a.B"}, "not the name of a class"),
        ({"vocab_file": "/etc/passwd"}, "names a place"),
        ({"chat_template": [{"name": "x", "template": "{{ ''.__class__ }}"}]}, "'__class__'"),
        ({"chat_template": "{{ x | attr('y') }}"}, "insides"),
        ([], "not a tokenizer's config"),
    ],
)
def test_a_tokenizer_asks_for_nothing(config: Any, said: str) -> None:
    assert said in " ".join(texts.tokenizer_problems(config))


def test_an_ordinary_tokenizer_is_let_in() -> None:
    said = {
        "tokenizer_class": "LlamaTokenizer", "name_or_path": "folder/model", "vocab_file": None,
        "chat_template": "{% for m in messages %}{{ m['role'] + m.content.strip() }}{% endfor %}",
    }  # fmt: skip
    assert list(texts.tokenizer_problems(said)) == []
