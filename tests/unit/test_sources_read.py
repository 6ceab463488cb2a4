"""Sources as a recipe names them: paths, formats, selections, surveys."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time

import pytest

from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import (
    Row,
    columns,
    infer_format,
    label,
    label_names,
    read,
    resolve,
    split,
    survey,
    value,
)


@pytest.fixture
def intents(tmp_path):
    """30 rows of 3 classes, in a csv file."""
    path = tmp_path / "intents.csv"
    body = "".join(f"text {i},{'abc'[i % 3]}\n" for i in range(30))
    path.write_text(f"text,category\n{body}", encoding="utf-8")
    return path


def named(path, **fields):
    return Source(path=str(path), text="text", label="category", **fields)


def test_reads_rows_with_their_lines(intents):
    rows = read(named(intents), seed=0)
    assert len(rows) == 30
    assert rows[4] == Row({"text": "text 4", "category": "b"}, "intents.csv:6")
    assert columns(named(intents)) == ("text", "category")


def test_gzip_byte_order_mark_and_aliases(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'\xef\xbb\xbf{"text": "caf\xc3\xa9"}\n'))
    source = Source(path=str(tmp_path / "a.jsonl.gz"))
    assert columns(source) == ("text",)
    assert read(source, seed=0)[0] == Row({"text": "café"}, "a.jsonl.gz:1")
    (tmp_path / "broken.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"broken\.csv\.gz: can't be read"):
        columns(Source(path=str(tmp_path / "broken.csv.gz")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\nfine\ncaf\xe9\n", r"x\.csv:3: byte 0xe9 is not UTF-8; convert"),
        (b"\xef\xbb\xbftext\ncaf\xe9\n", r"x\.csv:2: byte 0xe9"),
        ("text\nwide\n".encode("utf-16"), r"x\.csv:1: byte 0xff"),
        ("text\nwide\n".encode("utf-16-le"), r"x\.csv:1: NUL byte.*UTF-16"),
        (b"text\nfine\na\0b\n", r"x\.csv:3: NUL byte"),
        (b"", r"x\.csv:1: the file is empty"),
        (b"text\n", r"x\.csv: the file is empty: no rows"),
    ],
)
def test_faulty_files(tmp_path, content, message):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(Source(path=str(tmp_path / "x.csv"), text="text"), seed=0)


def test_header_of_a_file_larger_than_what_is_read_for_it(tmp_path):
    wide = ",".join(f"column{i}" for i in range(10_000))
    (tmp_path / "wide.csv").write_text(f"{wide}\n{','.join('é' * 10_000)}\n" * 2, encoding="utf-8")
    assert len(columns(Source(path=str(tmp_path / "wide.csv")))) == 10_000


def test_missing_files_name_what_is_there(intents):
    with pytest.raises(
        DataError, match=r"no such file; did you mean intents\.csv\?; in that folder: intents"
    ):
        resolve(str(intents.with_name("intent.csv")))
    with pytest.raises(DataError, match=r"no such folder 'none'"):
        resolve(str(intents.parent / "none" / "deep" / "x.csv"))
    with pytest.raises(DataError, match="plain name"):
        resolve("builtin:../errors.py")
    assert resolve(str(intents)) == intents


def test_builtin_names_a_file_of_the_package():
    with pytest.raises(DataError, match=r"builtin:no-such\.jsonl: no such file; .*in that folder:"):
        resolve("builtin:no-such.jsonl")


def test_types_that_are_not_read(tmp_path):
    (tmp_path / "x.xlsx").write_bytes(b"x")
    with pytest.raises(
        DataError, match="unknown type; allowed: csv, json, jsonl, npz, parquet, tsv, txt, zip"
    ):
        columns(Source(path=str(tmp_path / "x.xlsx")))
    with pytest.raises(DataError, match=r"name one of: x\.xlsx"):
        columns(Source(path=str(tmp_path)))


def test_options_of_another_kind_of_source_are_refused(intents):
    with pytest.raises(DataError, match="document: file is for txt files; this is csv"):
        read(named(intents, document="file"), seed=0)
    with pytest.raises(DataError, match="name and revision belong to a Hub data set"):
        read(named(intents, revision="main"), seed=0)


@pytest.mark.parametrize(
    ("fields", "there", "expected"),
    [
        ({}, ["messages", "label"], "messages"),
        ({}, ["prompt", "completion", "text"], "prompt-completion"),
        ({}, ["image", "label"], "image-classification"),
        ({"image": "picture"}, ["picture", "kind"], "image"),
        ({}, ["anchor", "positive"], "pairs"),
        ({}, ["text", "label"], "classification"),
        ({}, ["text", "category"], "text"),
        ({"text": "body"}, ["body", "label", "text"], "text"),
        ({"text": "body", "label": "kind"}, ["body", "kind"], "classification"),
        ({"prompt": "{q}\n{hint}", "completion": "a"}, ["q", "hint", "a"], "prompt-completion"),
        ({"split_at": "###"}, ["text", "label"], "prompt-completion"),
        ({"text": "body", "split_at": "###"}, ["body"], "prompt-completion"),
    ],
)
def test_formats(fields, there, expected):
    assert infer_format(Source(path="x.csv", **fields), there) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"text": "txt"},
            r"x\.csv: text: no column 'txt'; did you mean 'text'\? columns there: text, other",
        ),
        ({"prompt": "{txet}", "completion": "other"}, r"prompt: no column 'txet'; did you mean 'text'"),
        ({"label": "other"}, r"label together make no format; allowed: messages; prompt \+ completion"),
        ({"text": "text", "completion": "other"}, "together make no format"),
        ({"split_at": "#", "label": "other"}, "split_at cuts the column text and doesn't go with label"),
    ],
)
def test_columns_that_make_no_format(fields, message):
    with pytest.raises(DataError, match=message):
        infer_format(Source(path="x.csv", **fields), ("text", "other"))
    with pytest.raises(DataError, match=r"none of the columns \(a, b\) has a conventional name"):
        infer_format(Source(path="x.csv"), ("a", "b"))


def test_templates_fill_names_and_nothing_else():
    row = Row({"q": "2 {a}", "n": 3, "a b": "x", "none": None}, "x:1")
    assert value(row, "q") == "2 {a}"
    assert value(row, "Q: {q} ({n}) {a b}") == "Q: 2 {a} (3) x"
    assert value(row, "{{literal}} {q}") == "{literal} 2 {a}"
    with pytest.raises(DataError, match=r"x:1: no column 'q\.__class__'"):
        value(row, "{q.__class__}")
    with pytest.raises(DataError, match="x:1: column 'none' is null; a template needs text"):
        value(row, "{none}")
    with pytest.raises(DataError, match="x:1: no column 'p'"):
        value(row, "p")


def test_labels_are_names_in_a_stable_order():
    source = Source(path="x.csv", text="text", label="y")
    numbers = [Row({"y": y}, "x:1") for y in (10, "9", 2.0, 2)]
    assert label_names(numbers, source) == ("2", "9", "10")
    assert label_names([Row({"y": y}, "x:1") for y in ("b", "10", "a")], source) == ("10", "a", "b")
    for wrong, told in ((None, "null"), ("", "empty"), ([1], "a list"), (float("nan"), "NaN")):
        with pytest.raises(DataError, match=f"x:7: label 'y' is {told}"):
            label(Row({"y": wrong}, "x:7"), "y")


def test_spans_partition_the_rows(intents):
    first = read(named(intents, span=(0.0, 0.7)), seed=0)
    second = read(named(intents, span=(0.7, 1.0)), seed=0)
    assert first + second == read(named(intents), seed=0)
    assert len(first) == 21
    with pytest.raises(DataError, match=r"span \[0.0, 0.01\] leaves nothing of 30 rows"):
        read(named(intents, span=(0.0, 0.01)), seed=0)


def test_span_of_a_document_cuts_its_text_and_its_end(tmp_path):
    (tmp_path / "x.txt").write_text("0123456789", encoding="utf-8")
    source = {"path": str(tmp_path / "x.txt"), "document": "file"}
    (head,) = read(Source(**source, span=(0.0, 0.7)), seed=0)
    (tail,) = read(Source(**source, span=(0.7, 1.0)), seed=0)
    assert (head.values["text"], head.ends, head.where) == ("0123456", False, "x.txt:1")
    assert (tail.values["text"], tail.ends, tail.where) == ("789", True, "x.txt:1 from character 7")


def test_samples_depend_on_the_seed_alone(intents):
    few = read(named(intents, per_class=2), seed=1)
    assert few == read(named(intents, per_class=2), seed=1)
    assert few != read(named(intents, per_class=2), seed=2)
    assert sorted(row.values["category"] for row in few) == list("aabbcc")
    lines = [int(row.where.rpartition(":")[2]) for row in read(named(intents, limit=7), seed=3)]
    assert len(lines) == 7
    assert lines == sorted(lines)
    assert len(read(named(intents, per_class=4, limit=5), seed=0)) == 5
    assert len(read(named(intents, limit=500), seed=0)) == 30


def test_few_shot_needs_labels_and_enough_rows(intents):
    with pytest.raises(DataError, match="per_class is 11, but label 'a' has 10 rows"):
        read(named(intents, per_class=11), seed=0)
    with pytest.raises(DataError, match="per_class needs a label column"):
        read(Source(path=str(intents), text="text", per_class=1), seed=0)


def test_split_is_reproducible_and_complete(intents):
    rows = read(named(intents), seed=0)
    kept, held_out = split(rows, 0.1, 5)
    assert (kept, held_out) == split(rows, 0.1, 5)
    assert held_out != split(rows, 0.1, 6)[1]
    assert len(held_out) == 3
    assert sorted((*kept, *held_out), key=rows.index) == list(rows)
    assert split(rows, 0.0, 5) == (rows, ())
    with pytest.raises(DataError, match="too few to hold out"):
        split(rows[:1], 0.5, 0)


def test_split_cuts_the_tail_of_a_single_document():
    (head,), (tail,) = split((Row({"text": "0123456789"}, "x.txt:1"),), 0.2, 0)
    assert (head.values["text"], head.ends) == ("01234567", False)
    assert (tail.values["text"], tail.ends) == ("89", True)
    (middle,), (end,) = split((head,), 0.5, 0)
    assert (middle.values["text"], middle.ends, end.ends) == ("0123", False, False)


def test_survey_says_what_read_will_find(intents):
    for fields in ({}, {"span": (0.0, 0.5)}, {"per_class": 2}, {"limit": 4}, {"per_class": 3, "limit": 4}):
        source = named(intents, **fields)
        found = survey(source, need_labels=True)
        assert found.rows == len(read(source, seed=9))
        assert found.labels == ("a", "b", "c")
        assert found.format == "classification"
    assert survey(named(intents), need_labels=False).labels is None


def test_survey_of_a_hub_source_stays_off_the_network():
    found = survey(Source(hub="some/data", text="text", label="label"), need_labels=True)
    assert (found.rows, found.labels, found.format) == (None, None, None)


def test_banking77_survey_is_light(data_root):
    path = str(data_root / "banking77" / "train.csv")
    code = (
        "import sys; from tlscale.recipe.types import Source; from tlscale.sources import survey\n"
        f"source = Source(path={path!r}, text='text', label='category')\n"
        "found = survey(source, need_labels=True)\n"
        "heavy = {'numpy', 'pyarrow', 'pandas', 'torch', 'datasets', 'PIL'} & set(sys.modules)\n"
        "print(found.rows, len(found.labels), found.format, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["10003", "77", "classification", "set()"]


def test_real_files(data_root):
    chat = data_root / "chat_demos"
    alpaca = Source(
        path=str(chat / "alpaca_en_demo.json"), prompt="{instruction}\n{input}\n", completion="output"
    )
    rows = read(alpaca, seed=0)
    assert len(rows) == 999
    lines = (chat / "alpaca_en_demo.json").read_text(encoding="utf-8").split("\n")
    for row in (rows[0], rows[500], rows[-1]):
        line = int(row.where.rpartition(":")[2])
        assert lines[line - 1].strip() == "{"
        assert row.values["instruction"][:20] in lines[line]
    assert survey(Source(path=str(chat / "kto_en_demo.json")), need_labels=False).format == "messages"
    dolly = Source(
        path=str(data_root / "dolly_openqa" / "chinkara-open_qa.jsonl"), split_at="### Assistant:"
    )
    assert survey(dolly, need_labels=False).format == "prompt-completion"
    start = time.process_time()
    assert len(read(dolly, seed=0)) == 3742
    assert time.process_time() - start < 2
