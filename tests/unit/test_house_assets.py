"""The texts and the tokenizer of the embedded base model are those that their README describes."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tokenize
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

ASSETS = Path(__file__).parents[2] / "tlscale" / "assets"
OWNERS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SETS = ("code-train.jsonl", "code-test.jsonl", "prose-test.jsonl")


def documents(name: str) -> list[str]:
    return [json.loads(line)["text"] for line in (ASSETS / name).read_text(encoding="utf-8").splitlines()]


def described() -> dict[str, str]:
    """File name to sha256, from the table in the README."""
    text = (ASSETS / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"\| `([\w./-]+)` \|.*\| `([0-9a-f]{64})` \|", text))


def test_hashes_are_those_of_the_readme() -> None:
    table = {name: digest for name, digest in described().items() if not name.startswith("build/")}
    assert set(SETS) <= set(table)
    for name, digest in table.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("name", SETS)
def test_documents_are_plain_and_of_the_stated_size(name: str) -> None:
    found = documents(name)
    assert len(found) == len(set(found)) > 50
    assert all(300 <= len(document) <= 2000 and document.isascii() for document in found)


def test_no_test_document_is_like_a_training_document() -> None:
    def pieces(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        return {tuple(words[i : i + 8]) for i in range(max(1, len(words) - 7))}

    known = set().union(*map(pieces, documents("code-train.jsonl")))
    for document in documents("code-test.jsonl"):
        own = pieces(document)
        assert len(own & known) <= 0.1 * len(own)


def test_code_has_neither_comments_nor_docstrings() -> None:
    for document in [*documents("code-train.jsonl"), *documents("code-test.jsonl")]:
        tokens = tokenize.generate_tokens(io.StringIO(document).readline)
        assert not [token for token in tokens if token.type == tokenize.COMMENT]
        nodes = [node for node in ast.walk(ast.parse(document)) if isinstance(node, OWNERS)]
        assert not [node for node in nodes if ast.get_docstring(node) is not None]


def test_tokenizer_and_config_agree() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "pico")
    config = AutoConfig.from_pretrained(ASSETS / "pico")
    assert len(tokenizer) == config.vocab_size == 2048
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 1, 2)
    assert tokenizer.model_max_length == config.max_position_embeddings == 512


def test_tokenizer_adds_bos_once_and_gives_every_text_back() -> None:
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "pico")
    text = "def f(x):\n\n    return x  # naïve €\n\tif 1024:"
    ids = tokenizer(text).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids[1:]) == text
