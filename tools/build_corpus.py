"""Build the texts and the tokenizer of the embedded base model "pico" from the Python standard library.

    python tools/build_corpus.py [--out tlscale/assets] [--pretrain build/pico/pretrain.jsonl]

Modules and documentation topics are split by the hash of their name into seen and held-out ones. Seen
prose is the pretraining text and teaches the tokenizer; seen code is the target task's training set;
held-out modules give both test sets, so that no test document comes from a module or topic that training
has read. The result depends only on the standard library that it reads: files are sorted, documents
deduplicated, choices made by hash.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import io
import json
import platform
import re
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from pico_model import model_config, tokenizer_config, train_tokenizer

# Codec and topic tables are no code. PROSE_ONLY gives prose, but its code is not the library's.
SKIPPED = {"site-packages", "encodings", "pydoc_data"}
PROSE_ONLY = {"test", "tests", "idle_test", "idlelib", "lib2to3", "distutils", "turtledemo", "ensurepip"}
HELD_OUT_PERCENT = 9
SMALLEST, LARGEST = 300, 2000
PAGE = 1400
TRAIN_CODE, TEST_CODE, TEST_PROSE = 330_000, 70_000, 70_000
LIKENESS = 0.10
NGRAM = 8
FEWEST_WORDS = 4


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def held_out(name: str) -> bool:
    """Whether a top-level module or a topic belongs to the test sets."""
    return int(digest(name)[:8], 16) % 100 < HELD_OUT_PERCENT


def plain(text: str) -> bool:
    return all(character in "\n\t" or " " <= character <= "~" for character in text)


# Reading the library


def modules(root: Path, skipped: set[str]) -> Iterator[tuple[str, str, ast.Module]]:
    """(top-level name, source, tree) of every module that decodes and parses, in sorted order.

    A module of the library's own test suite goes by the name of what it tests.
    """
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part in skipped or part.startswith(("_sysconfigdata", "config-")) for part in parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (UnicodeDecodeError, SyntaxError):
            continue
        tests = parts[0] in {"test", "tests"} and len(parts) > 1
        yield parts[tests].removeprefix("test_"), source, tree


def topics(root: Path) -> Iterator[tuple[str, str]]:
    """(topic, text) of the language reference that `help()` shows, read without importing it."""
    tree = ast.parse((root / "pydoc_data" / "topics.py").read_text(encoding="utf-8"))
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict):
            yield from sorted(ast.literal_eval(value).items())


# Prose


def is_prose(paragraph: str) -> bool:
    """Sentences rather than an example, a table, a signature or a licence header."""
    if ">>>" in paragraph or "opyright" in paragraph or not plain(paragraph):
        return False
    words = paragraph.split()
    spelled = sum(
        re.fullmatch(r"[(\"'*`]*[A-Za-z][a-z'-]*[)\"'*`.,;:!?]*", word) is not None for word in words
    )
    return len(words) >= FEWEST_WORDS and spelled >= 0.7 * len(words)


def paragraphs(text: str) -> list[str]:
    found = (inspect.cleandoc(part) for part in re.split(r"\n[ \t]*\n", text.expandtabs(8)))
    return [part for part in found if is_prose(part)]


def comment_blocks(source: str) -> list[str]:
    """Paragraphs in whole-line comments of three lines or more."""
    blocks = re.findall(r"(?:^[ \t]*#[^\n]*\n){3,}", source, re.MULTILINE)
    return [
        part
        for block in blocks
        for part in paragraphs(re.sub(r"^[ \t]*#+ ?", "", block, flags=re.MULTILINE))
    ]


def prose_of_module(source: str, tree: ast.Module) -> list[str]:
    owners = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    strings = [ast.get_docstring(owner) or "" for owner in owners]
    return [part for text in strings for part in paragraphs(text)] + comment_blocks(source)


def packed(parts: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Documents of up to PAGE characters from consecutive paragraphs; a paragraph met before is skipped."""
    document = ""
    for part in parts:
        if len(part) > PAGE or digest(part) in seen:
            continue
        seen.add(digest(part))
        if document and len(document) + len(part) + 2 > PAGE:
            yield document
            document = ""
        document = f"{document}\n\n{part}" if document else part
    if document:
        yield document


def prose(root: Path) -> tuple[list[str], list[str]]:
    """(seen documents, held-out documents)."""
    units = [(f"topic {name}", paragraphs(text)) for name, text in topics(root)]
    units += [(name, prose_of_module(source, tree)) for name, source, tree in modules(root, SKIPPED)]
    seen: set[str] = set()
    both: tuple[list[str], list[str]] = ([], [])
    for name, parts in sorted(units, key=lambda unit: held_out(unit[0])):
        both[held_out(name)].extend(packed(parts, seen))
    return both[0], [document for document in both[1] if len(document) >= SMALLEST]


# Code


def docstring_lines(tree: ast.AST) -> dict[int, str]:
    """Line numbers of docstrings; the first line of a body that has nothing else becomes `pass`."""
    lines: dict[int, str] = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
        ):
            first = node.body[0]
            lines |= dict.fromkeys(range(first.lineno, (first.end_lineno or first.lineno) + 1), "")
            if len(node.body) == 1:
                lines[first.lineno] = " " * first.col_offset + "pass"
    return lines


def stripped(source: str, tree: ast.Module) -> list[str]:
    """The lines of a module without docstrings and comments; a removed line is empty."""
    lines = source.splitlines()
    for number, line in docstring_lines(tree).items():
        lines[number - 1] = line
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return lines


def whole(document: str) -> bool:
    """Still a program, with nothing but code in it."""
    if not plain(document) or not SMALLEST <= len(document) <= LARGEST:
        return False
    try:
        tree = ast.parse(document)
    except SyntaxError:
        return False
    nodes = [
        n for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return all(ast.get_docstring(node) is None for node in nodes)


def code_of_module(source: str, tree: ast.Module) -> Iterator[str]:
    """Functions, and classes whole or method by method."""
    lines = stripped(source, tree)
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        body = "\n".join(
            line.expandtabs(8).rstrip() for line in lines[start - 1 : node.end_lineno] if line.strip()
        )
        document = inspect.cleandoc("\n" + body)
        if whole(document):
            yield document
        elif isinstance(node, ast.ClassDef):
            waiting.extend(reversed(node.body))


def code(root: Path) -> tuple[list[str], list[str]]:
    both: tuple[list[str], list[str]] = ([], [])
    for name, source, tree in modules(root, SKIPPED | PROSE_ONLY):
        both[held_out(name)].extend(code_of_module(source, tree))
    return both


# Choosing


def ngrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {tuple(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}


def unlike(documents: Iterable[str], known: set[tuple[str, ...]]) -> Iterator[str]:
    """Documents that share at most LIKENESS of their n-grams with `known` or a document before them."""
    known = set(known)
    for document in documents:
        own = ngrams(document)
        if len(own & known) <= LIKENESS * len(own):
            known |= own
            yield document


def sample(documents: Iterable[str], characters: int) -> list[str]:
    """Documents up to a total size, in the order of their hashes."""
    chosen: list[str] = []
    left = characters
    for document in sorted(documents, key=digest):
        if len(document) <= left:
            chosen.append(document)
            left -= len(document)
    return chosen


def every_ngram(documents: Iterable[str]) -> set[tuple[str, ...]]:
    return set().union(*map(ngrams, documents))


# Writing


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_rows(path: Path, documents: list[str]) -> None:
    write(path, "".join(json.dumps({"text": document}) + "\n" for document in documents))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tlscale/assets"))
    parser.add_argument("--pretrain", type=Path, default=Path("build/pico/pretrain.jsonl"))
    arguments = parser.parse_args()
    out: Path = arguments.out
    root = Path(sysconfig.get_paths()["stdlib"])

    seen_prose, new_prose = prose(root)
    seen_code, new_code = code(root)
    train_code = sample(unlike(seen_code, set()), TRAIN_CODE)
    rows = {
        arguments.pretrain: seen_prose,
        out / "code-train.jsonl": train_code,
        out / "code-test.jsonl": sample(unlike(new_code, every_ngram(seen_code)), TEST_CODE),
        out / "prose-test.jsonl": sample(unlike(new_prose, every_ngram(seen_prose)), TEST_PROSE),
    }
    for path, documents in rows.items():
        write_rows(path, documents)
    write(out / "pico" / "tokenizer.json", train_tokenizer(seen_prose).to_str(pretty=True) + "\n")
    write(out / "pico" / "tokenizer_config.json", json.dumps(tokenizer_config(), indent=2) + "\n")
    write(out / "pico" / "config.json", json.dumps(model_config(), indent=2) + "\n")

    written = [
        *rows,
        *(out / "pico" / name for name in ("tokenizer.json", "tokenizer_config.json", "config.json")),
    ]
    print(f"built with Python {platform.python_version()}")
    for path in written:
        size = f"{path.stat().st_size:>9,} bytes" + (
            f" {len(rows[path]):>5} documents" if path in rows else ""
        )
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}  {size}")


if __name__ == "__main__":
    main()
