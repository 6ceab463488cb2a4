"""Bad data, one case each: the files, the source that reads them, and what must be said of them."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image

Content = bytes | Callable[[Path], None]
TEXTS = [f"a question about the number {i}" for i in range(40)]


@dataclass(frozen=True)
class Case:
    """`files` are written into a folder; `said` is the check's name and `place` must be in its message."""

    name: str
    files: Mapping[str, Content]
    said: str
    place: str
    task: str = "sequence-classification"
    severity: str = "error"
    train: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def table(rows: list[tuple[Any, ...]], header: str = "text,label") -> bytes:
    return ("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n").encode()


def good(count: int = 40, classes: int = 2) -> list[tuple[Any, ...]]:
    return [(TEXTS[i], f"class{i % classes}") for i in range(count)]


def with_row(*row: Any, at: int = 15) -> bytes:
    rows = good()
    rows[at] = row
    return table(rows)


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def labelled(last: dict[str, Any]) -> bytes:
    """40 texts with labels, and one more row."""
    return lines([*({"text": t, "label": "ab"[i % 2]} for i, t in enumerate(TEXTS)), last])


def marked(last: dict[str, Any]) -> bytes:
    """40 texts with a mark to split at, and one more row."""
    return lines([*({"text": f"{t} ### {i}"} for i, t in enumerate(TEXTS)), last])


def pairs(**changed: Any) -> bytes:
    """40 prompts with completions; row 16 as `changed`."""
    rows: list[dict[str, Any]] = [
        {"prompt": f"{text}: ", "completion": f"answer {i}"} for i, text in enumerate(TEXTS)
    ]
    rows[15] |= changed
    return lines(rows)


def chats(*messages: Any) -> bytes:
    """40 good conversations, and row 16 with these messages."""
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"answer {i}"}]}
        for i, text in enumerate(TEXTS)
    ]
    rows[15] = {"messages": list(messages)}
    return lines(rows)


def turn(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def parquet(**columns: Any) -> Callable[[Path], None]:
    return lambda path: pyarrow.parquet.write_table(pyarrow.table(columns), path)


def arrays(**named: Any) -> Callable[[Path], None]:
    return lambda path: numpy.savez(path, **named)


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return made.getvalue()


def picture(seed: int = 0, *, colour: str | None = None) -> bytes:
    made = io.BytesIO()
    pixels = numpy.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype("uint8")
    drawn = Image.fromarray(pixels) if colour is None else Image.new("RGB", (8, 8), colour)
    drawn.save(made, "PNG")
    return made.getvalue()


def folder(**changed: bytes) -> dict[str, Content]:
    """Two classes of six images, and one more file `changed` in class a."""
    found: dict[str, Content] = {
        f"pets/{c}/{i}.png": picture(i + 10 * (c == "b")) for c in "ab" for i in range(6)
    }
    return found | {f"pets/a/{name.replace('_dot_', '.')}": content for name, content in changed.items()}


def noise(count: int = 40) -> Any:
    return numpy.random.default_rng(0).integers(0, 255, (count, 8, 8)).astype("uint8")


SORT, LM = "sequence-classification", "causal-lm"
PIC, SIM = "image-classification", "sentence-embedding"
PIXELS = {"image": "images", "label": "labels"}
ALTERNATING = numpy.arange(40) % 2
USER, ANSWER = turn("user", "what is it?"), turn("assistant", "a stone")
NAMED = {"prompt": "prompt", "completion": "completion"}

CELLS = [
    Case("empty text", {"t.csv": with_row("", "class1")}, "empty", "t.csv:17"),
    Case("blank text", {"t.csv": with_row("   ", "class1")}, "empty", "t.csv:17"),
    Case("empty label", {"t.csv": with_row("hello there", "")}, "label", "t.csv:17"),
    Case("blank label", {"t.csv": with_row("hello there", " ")}, "label", "t.csv:17"),
    Case(
        "label nan", {"t.csv": with_row("hello there", "nan")}, "placeholder", "t.csv:17", SORT, "warning"
    ),
    Case("text nan", {"t.csv": with_row("NaN", "class1")}, "placeholder", "t.csv:17", SORT, "warning"),
    Case(
        "printed bytes",
        {"t.csv": with_row("b'hello'", "class1")},
        "printed-object",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case("null text", {"t.jsonl": labelled({"text": None, "label": "a"})}, "null", "t.jsonl:41"),
    Case("number as text", {"t.jsonl": labelled({"text": 7, "label": "a"})}, "wrong-type", "t.jsonl:41"),
    Case("list as text", {"t.jsonl": labelled({"text": ["x"], "label": "a"})}, "wrong-type", "t.jsonl:41"),
    Case("list as label", {"t.jsonl": labelled({"text": "x", "label": ["a", "b"]})}, "label", "t.jsonl:41"),
    Case("another key", {"t.jsonl": labelled({"txet": "x", "label": "a"})}, "missing-column", "t.jsonl:41"),
    Case(
        "nan in parquet",
        {"t.parquet": parquet(text=pyarrow.array([None, *TEXTS[1:]]), label=["a", "b"] * 20)},
        "null",
        "t.parquet[0]",
    ),
    Case(
        "float column as text",
        {"t.parquet": parquet(text=[float("nan")] * 40, label=["a", "b"] * 20)},
        "nan",
        "t.parquet[0]",
    ),
    Case(
        "nan label",
        {"t.parquet": parquet(text=TEXTS, label=[float("nan"), *[1.0, 2.0] * 19, 1.0])},
        "label",
        "t.parquet[0]",
    ),
    Case(
        "template over null",
        {
            "t.jsonl": lines(
                [{"q": t, "h": "x", "a": "b"} for t in TEXTS] + [{"q": None, "h": "x", "a": "b"}]
            )
        },
        "template",
        "t.jsonl:41",
        LM,
        train={"prompt": "{q}\n{h}\n", "completion": "a"},
    ),
    Case("NUL escape", {"t.jsonl": pairs(completion="a\0b")}, "nul", "t.jsonl:16", LM),
    Case("lone surrogate", {"t.jsonl": pairs(completion="a\ud800b")}, "surrogate", "t.jsonl:16", LM),
    Case(
        "replacement character",
        {"t.csv": with_row("caf\ufffd", "class1")},
        "replacement",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case(
        "mojibake",
        {"t.csv": with_row("café".encode().decode("cp1252"), "class1")},
        "mojibake",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case(
        "mojibake quotes",
        {"t.csv": with_row("it\u2019s".encode().decode("cp1252"), "class1")},
        "mojibake",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case("mark inside", {"t.csv": with_row("\ufeffhello", "class1")}, "bom", "t.csv:17", SORT, "warning"),
    Case(
        "mark at the beginning", {"t.csv": b"\xef\xbb\xbf" + table(good())}, "bom", "t.csv:1", SORT, "note"
    ),
    Case(
        "control character", {"t.csv": with_row("a\x07b", "class1")}, "control", "t.csv:17", SORT, "warning"
    ),
    Case(
        "very long row",
        {"t.csv": with_row("word " * 9000, "class1")},
        "long-row",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case(
        "old Mac lines", {"t.txt": ("\r".join(TEXTS)).encode()}, "carriage-return", "t.txt:1", LM, "warning"
    ),
]

FILES = [
    Case("empty file", {"t.csv": b""}, "unreadable", "t.csv:1"),
    Case("header alone", {"t.csv": b"text,label\n"}, "unreadable", "t.csv"),
    Case("empty json", {"t.json": b"[]"}, "unreadable", "t.json", LM),
    Case(
        "Latin-1", {"t.csv": table(good()) + "caf\xe9,class1\n".encode("latin-1")}, "unreadable", "t.csv:42"
    ),
    Case("UTF-16", {"t.csv": table(good()).decode().encode("utf-16")}, "unreadable", "t.csv:1"),
    Case("NUL byte", {"t.csv": with_row("a\0b", "class1")}, "unreadable", "t.csv:17"),
    Case("ragged csv", {"t.csv": with_row("a", "b", "c")}, "unreadable", "t.csv:17"),
    Case("unclosed quote", {"t.csv": with_row('"a', "b")}, "unreadable", "t.csv:17"),
    Case("semicolons", {"t.csv": table(good()).replace(b",", b";")}, "unreadable", "t.csv"),
    Case("column twice", {"t.csv": table(good(), "text,text")}, "unreadable", "t.csv:1"),
    Case("broken json line", {"t.jsonl": pairs() + b'{"prompt": \n'}, "unreadable", "t.jsonl:41", LM),
    Case(
        "NaN in json",
        {"t.jsonl": pairs() + b'{"prompt": "x", "completion": NaN}\n'},
        "unreadable",
        "t.jsonl:41",
        LM,
    ),
    Case("a list on a line", {"t.jsonl": pairs() + b"[1, 2]\n"}, "unreadable", "t.jsonl:41", LM),
    Case("json lines as json", {"t.json": pairs()}, "unreadable", "t.json:1", LM),
    Case(
        "json cut short",
        {"t.json": json.dumps([{"text": t} for t in TEXTS], indent=1).encode()[:-30]},
        "unreadable",
        "t.json:1",
        LM,
    ),
    Case("broken gzip", {"t.csv.gz": gzip.compress(table(good()))[:-20]}, "unreadable", "t.csv.gz"),
    Case("no parquet", {"t.parquet": table(good())}, "unreadable", "t.parquet"),
    Case("no zip", {"t.zip": b"PK not really"}, "unreadable", "t.zip", PIC),
    Case(
        "zip of odd things",
        {"t.zip": zipped(readme_dot_md=b"x", other_dot_md=b"y")},
        "unreadable",
        "t.zip",
        PIC,
    ),
    Case("zip slip", {"t.zip": zipped(**{"..__a_dot_csv": b"text\nx\n"})}, "unreadable", "t.zip", LM),
    Case("unknown type", {"t.xlsx": b"PK"}, "unreadable", "t.xlsx"),
    Case(
        "pickled array",
        {"t.npz": arrays(images=noise(), labels=numpy.array([{}] * 40, dtype=object))},
        "unreadable",
        "t.npz",
        PIC,
        train=PIXELS,
    ),
    Case(
        "arrays of unequal length",
        {"t.npz": arrays(images=noise(), labels=numpy.arange(39))},
        "unreadable",
        "t.npz",
        PIC,
        train=PIXELS,
    ),
    Case(
        "misspelt column",
        {"t.csv": table(good())},
        "unreadable",
        "t.csv",
        train={"text": "text", "label": "lable"},
    ),
    Case("no known column", {"t.csv": table(good(), "body,team")}, "unreadable", "t.csv"),
    Case(
        "nearly a column", {"t.csv": table(good(), "text,lable")}, "near-column", "t.csv", SORT, "warning"
    ),
    Case(
        "nearly a column, parquet",
        {"t.parquet": parquet(text=TEXTS, promt=TEXTS)},
        "near-column",
        "t.parquet",
        LM,
        "warning",
    ),
    Case("a format of another task", {"t.csv": table(good(), "text,other")}, "format", "t.csv"),
    Case("span of nothing", {"t.csv": table(good(4))}, "unreadable", "t.csv", train={"span": [0.0, 0.1]}),
    Case("too few for per_class", {"t.csv": table(good())}, "unreadable", "t.csv", train={"per_class": 30}),
    Case("a single row", {"t.csv": table(good(1))}, "unreadable", "t.csv"),
    Case(
        "few rows",
        {"t.csv": table(good(6)), "u.csv": table(good())},
        "few-rows",
        "t.csv",
        SORT,
        "warning",
        more={"test": {"path": "u.csv"}},
    ),
    Case(
        "short lines",
        {"t.txt": "\n".join(f"line {i} of it" for i in range(300)).encode()},
        "short-lines",
        "t.txt:1",
        LM,
        "warning",
    ),
]

LABELS = [
    Case("one class", {"t.csv": table(good(classes=1))}, "one-class", "t.csv:2"),
    Case("a label a row", {"t.csv": table(good(classes=40))}, "many-labels", "t.csv:2"),
    Case(
        "numbers as labels",
        {"t.csv": table([(t, i / 7) for i, t in enumerate(TEXTS)])},
        "many-labels",
        "t.csv:2",
    ),
    Case(
        "a class with one row",
        {"t.csv": with_row("hello there", "rare")},
        "one-row",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case(
        "imbalance",
        {"t.csv": table([(f"text {i}", "ab"[i % 50 == 9]) for i in range(150)])},
        "imbalance",
        "t.csv",
        SORT,
        "warning",
    ),
    Case(
        "two spellings",
        {"t.csv": with_row("hello there", "Class1")},
        "label-spelling",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case(
        "a space in a label",
        {"t.csv": with_row("hello there", " class1")},
        "label-spelling",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case(
        "contradiction",
        {"t.csv": with_row(TEXTS[0], "class1")},
        "contradiction",
        "t.csv:17",
        SORT,
        "warning",
    ),
    Case(
        "label only in test",
        {"t.csv": table(good()), "u.csv": with_row("hello", "class9")},
        "unknown-label",
        "u.csv:17",
        more={"test": {"path": "u.csv"}},
    ),
    Case(
        "label not listed",
        {"t.csv": with_row("hello", "clas1")},
        "unknown-label",
        "t.csv:17",
        more={"labels": ["class0", "class1"]},
    ),
    Case(
        "label listed, no row",
        {"t.csv": table(good())},
        "unused-label",
        "t.csv",
        SORT,
        "warning",
        more={"labels": ["class0", "class1", "class2"]},
    ),
]

TWICE = [
    Case("duplicates", {"t.csv": table(good() + good()[:5])}, "duplicate", "t.csv:42", SORT, "warning"),
    Case("duplicate pairs", {"t.jsonl": pairs() + pairs()}, "duplicate", "t.jsonl:41", LM, "warning"),
    Case(
        "test in train",
        {"t.csv": table(good()), "u.csv": table(good()[:10])},
        "overlap",
        "u.csv:2",
        SORT,
        "warning",
        more={"test": {"path": "u.csv"}},
    ),
    Case(
        "case and space aside",
        {
            "t.csv": table(good()),
            "u.csv": with_row(f"  {TEXTS[3].upper()} ", "class1", at=0).replace(
                b"a question", b"another question"
            ),
        },
        "overlap",
        "u.csv:2",
        SORT,
        "warning",
        more={"test": {"path": "u.csv"}},
    ),
    Case("test is train", {"t.csv": table(good())}, "overlap", "t.csv:2", more={"test": {"path": "t.csv"}}),
    Case(
        "retention in train",
        {"t.jsonl": pairs(), "u.jsonl": pairs()},
        "overlap",
        "u.jsonl:1",
        LM,
        "warning",
        more={"retention": {"path": "u.jsonl"}},
    ),
    Case(
        "validation in train",
        {"t.jsonl": pairs(), "u.jsonl": pairs()},
        "overlap",
        "u.jsonl:1",
        LM,
        "warning",
        more={"validation": {"path": "u.jsonl"}},
    ),
    Case(
        "same prompts",
        {"t.jsonl": pairs(), "u.jsonl": pairs().replace(b"answer", b"another")},
        "prompt-overlap",
        "u.jsonl:1",
        LM,
        "warning",
        more={"test": {"path": "u.jsonl"}},
    ),
]

LANGUAGE = [
    Case("empty completion", {"t.jsonl": pairs(completion="")}, "empty", "t.jsonl:16", LM),
    Case("empty prompt", {"t.jsonl": pairs(prompt=" ")}, "empty", "t.jsonl:16", LM, "warning"),
    Case(
        "completion is the prompt",
        {"t.jsonl": pairs(completion=f"{TEXTS[15]}: ")},
        "equal-pair",
        "t.jsonl:16",
        LM,
        "warning",
    ),
    Case(
        "one column twice",
        {"t.jsonl": pairs()},
        "equal-pair",
        "t.jsonl",
        LM,
        train={"prompt": "prompt", "completion": "{prompt}"},
    ),
    Case(
        "glued",
        {"t.jsonl": pairs()},
        "glued",
        "t.jsonl",
        LM,
        "warning",
        {"prompt": "{prompt}so", "completion": "completion"},
    ),
    Case(
        "constant completion",
        {"t.jsonl": lines([{"prompt": f"{t}: ", "completion": "yes"} for t in TEXTS])},
        "constant",
        "t.jsonl",
        LM,
        "warning",
    ),
    Case(
        "split_at not there",
        {"t.jsonl": marked({"text": "alone"})},
        "split-at",
        "t.jsonl:41",
        LM,
        train={"text": "text", "split_at": "###"},
    ),
    Case(
        "nothing behind split_at",
        {"t.jsonl": marked({"text": "alone ###"})},
        "empty",
        "t.jsonl:41",
        LM,
        train={"text": "text", "split_at": "###"},
    ),
    Case(
        "empty anchor",
        {
            "t.jsonl": lines(
                [{"anchor": t, "positive": f"so {t}"} for t in TEXTS] + [{"anchor": "", "positive": "x"}]
            )
        },
        "empty",
        "t.jsonl:41",
        SIM,
    ),
    Case(
        "anchor is positive",
        {"t.jsonl": lines([{"anchor": t, "positive": t} for t in TEXTS])},
        "equal-pair",
        "t.jsonl",
        SIM,
    ),
    Case(
        "blank document",
        {"t.jsonl": lines([{"text": t} for t in TEXTS] + [{"text": " "}])},
        "empty",
        "t.jsonl:41",
        LM,
        "warning",
    ),
]

CHAT = [
    Case("no messages", {"t.jsonl": chats()}, "messages", "t.jsonl:16", LM),
    Case(
        "messages as a string",
        {"t.jsonl": lines([{"messages": json.dumps([USER, ANSWER])}] * 20)},
        "messages",
        "t.jsonl",
        LM,
    ),
    Case(
        "from and value",
        {"t.jsonl": chats({"from": "human", "value": "x"}, {"from": "gpt", "value": "y"})},
        "messages",
        "t.jsonl:16",
        LM,
    ),
    Case("a text among messages", {"t.jsonl": chats(USER, "a stone")}, "messages", "t.jsonl:16", LM),
    Case("null content", {"t.jsonl": chats(USER, turn("assistant", None))}, "messages", "t.jsonl:16", LM),
    Case(
        "content in parts",
        {"t.jsonl": chats(turn("user", [{"type": "text"}]), ANSWER)},
        "messages",
        "t.jsonl:16",
        LM,
    ),
    Case("empty answer", {"t.jsonl": chats(USER, turn("assistant", " "))}, "empty", "t.jsonl:16", LM),
    Case(
        "empty question", {"t.jsonl": chats(turn("user", ""), ANSWER)}, "empty", "t.jsonl:16", LM, "warning"
    ),
    Case("misspelt role", {"t.jsonl": chats(USER, turn("asistant", "x"))}, "role", "t.jsonl:16", LM),
    Case("another format's role", {"t.jsonl": chats(turn("human", "x"), ANSWER)}, "role", "t.jsonl:16", LM),
    Case(
        "an unknown role",
        {"t.jsonl": chats(turn("narrator", "x"), USER, ANSWER)},
        "role",
        "t.jsonl:16",
        LM,
        "warning",
    ),
    Case("nobody answers", {"t.jsonl": chats(USER)}, "no-assistant", "t.jsonl:16", LM, "warning"),
    Case(
        "nobody answers anywhere",
        {"t.jsonl": lines([{"messages": [turn("user", t)]} for t in TEXTS])},
        "no-assistant",
        "t.jsonl",
        LM,
    ),
    Case(
        "two users in a row", {"t.jsonl": chats(USER, USER, ANSWER)}, "order", "t.jsonl:16", LM, "warning"
    ),
    Case(
        "the assistant first",
        {"t.jsonl": chats(ANSWER, USER, ANSWER)},
        "order",
        "t.jsonl:16",
        LM,
        "warning",
    ),
    Case(
        "a late system turn",
        {"t.jsonl": chats(USER, turn("system", "x"), ANSWER)},
        "order",
        "t.jsonl:16",
        LM,
        "warning",
    ),
    Case("the user last", {"t.jsonl": chats(USER, ANSWER, USER)}, "order", "t.jsonl:16", LM, "warning"),
    Case(
        "mojibake in a chat",
        {"t.jsonl": chats(USER, turn("assistant", "café".encode().decode("cp1252")))},
        "mojibake",
        "t.jsonl:16",
        LM,
        "warning",
    ),
]

IMAGES = [
    Case("no image", folder(odd_dot_png=b"hello"), "image", "a/odd.png", PIC),
    Case("empty image", folder(odd_dot_png=b""), "image", "a/odd.png", PIC),
    Case("image cut short", folder(odd_dot_png=picture(99)[:-60]), "image", "a/odd.png", PIC),
    Case(
        "one colour", folder(odd_dot_png=picture(colour="red")), "flat-image", "a/odd.png", PIC, "warning"
    ),
    Case("not only images", folder(notes_dot_txt=b"x"), "unreadable", "a/notes.txt", PIC),
    Case(
        "image outside of a class",
        {**folder(), "pets/stray.png": picture()},
        "unreadable",
        "pets: stray.png",
        PIC,
    ),
    Case("image twice", folder(odd_dot_png=picture(3)), "duplicate", "png", PIC, "warning"),
    Case(
        "broken image in a zip",
        {
            "t.zip": zipped(
                **{f"{c}__{i}_dot_png": picture(i + 10 * (c == "b")) for c in "ab" for i in range(6)},
                a__odd_dot_png=b"no",
            )
        },
        "image",
        "a/odd.png",
        PIC,
    ),
    Case(
        "a path that isn't there",
        {"t.csv": table([(f"{i}.png", "ab"[i % 2]) for i in range(20)], "image,label")},
        "image",
        "t.csv:",
        PIC,
    ),
    Case(
        "a path that leaves",
        {"t.csv": table([(f"../../{i}.png", "ab"[i % 2]) for i in range(20)], "image,label")},
        "image",
        "t.csv:",
        PIC,
    ),
    Case(
        "float pixels",
        {"t.npz": arrays(images=noise() / 255, labels=ALTERNATING)},
        "image",
        "t.npz[",
        PIC,
        train=PIXELS,
    ),
    Case(
        "NaN pixels",
        {"t.npz": arrays(images=numpy.full((40, 8, 8), numpy.nan), labels=ALTERNATING)},
        "nan",
        "t.npz[",
        PIC,
        train=PIXELS,
    ),
    Case(
        "flat arrays",
        {"t.npz": arrays(images=noise() * 0, labels=ALTERNATING)},
        "flat-image",
        "t.npz[",
        PIC,
        "warning",
        PIXELS,
    ),
    Case(
        "pixels in a row",
        {"t.npz": arrays(images=noise().reshape(40, 64), labels=ALTERNATING)},
        "image",
        "t.npz[",
        PIC,
        train=PIXELS,
    ),
    Case(
        "one-hot labels",
        {"t.npz": arrays(images=noise(), labels=numpy.eye(2)[ALTERNATING])},
        "label",
        "t.npz[",
        PIC,
        train=PIXELS,
    ),
]

CASES = [*CELLS, *FILES, *LABELS, *TWICE, *LANGUAGE, *CHAT, *IMAGES]
