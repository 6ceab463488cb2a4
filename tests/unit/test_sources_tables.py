"""Text files to rows: every record with its line, every fault named."""

from __future__ import annotations

import csv

import pytest

from tlscale.errors import DataError
from tlscale.sources.tables import jsonl_header, read_csv, read_json, read_jsonl, read_tsv, read_txt


def wheres(rows):
    return [row.where for row in rows]


def test_csv_names_the_line_where_a_record_starts():
    rows = read_csv('text,label\nfirst,a\n"two\nlines, and ""quotes""",b\n\nlast,c\n', "x.csv")
    assert [dict(row.values) for row in rows] == [
        {"text": "first", "label": "a"},
        {"text": 'two\nlines, and "quotes"', "label": "b"},
        {"text": "last", "label": "c"},
    ]
    assert wheres(rows) == ["x.csv:2", "x.csv:3", "x.csv:6"]


def test_csv_keeps_cells_beyond_the_limit_of_the_csv_module():
    before = csv.field_size_limit()
    rows = read_csv("text,label\n" + "x" * 200_000 + ",a\n", "x.csv")
    assert len(rows[0].values["text"]) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\na,b\nc\n", r"x\.csv:3: 1 cells, but the header has 2 columns \(text, label\)"),
        ("text,label\na,b,c\n", r"x\.csv:2: 3 cells"),
        ('text,label\na,b\n"open,c\nd,e\n', r"x\.csv:3: broken csv record"),
        ('text,label\n"a"b,c\n', r"x\.csv:2: broken csv record"),
        ("text,text\na,b\n", r"x\.csv:1: column 'text' is twice"),
        ("", r"x\.csv:1: the file is empty"),
    ],
)
def test_faulty_csv(content, message):
    with pytest.raises(DataError, match=message):
        read_csv(content, "x.csv")


def test_tsv_takes_quotes_literally_and_one_record_a_line():
    rows = read_tsv('label\ttext\r\nham\t"Gud aftr\r\nspam\tWIN "now"\r\n', "x.tsv")
    assert [row.values["text"] for row in rows] == ['"Gud aftr', 'WIN "now"']
    assert wheres(rows) == ["x.tsv:2", "x.tsv:3"]
    with pytest.raises(DataError, match=r"x\.tsv:2: 3 cells"):
        read_tsv("a\tb\n1\t2\t3\n", "x.tsv")


def test_jsonl_cuts_lines_at_newlines_only():
    rows = read_jsonl('{"text": "a\u2028b"}\n\n{"text": "c"}', "x.jsonl")
    assert [row.values["text"] for row in rows] == ["a\u2028b", "c"]
    assert wheres(rows) == ["x.jsonl:1", "x.jsonl:3"]
    assert jsonl_header('\n{"text": 1, "label": 2}\n', "x.jsonl") == ("text", "label")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', r"x\.jsonl:2: broken JSON"),
        ("[1]", r"x\.jsonl:2: a list where an object"),
        ('"a"', r"x\.jsonl:2: a str where an object"),
        ('{"text": NaN}', r"x\.jsonl:2: broken JSON: NaN"),
        ('{"text": 1, "text": 2}', r"x\.jsonl:2: broken JSON: key 'text' is twice"),
        ('{"text": 1} {"text": 2}', r"x\.jsonl:2: more than one JSON value"),
    ],
)
def test_faulty_jsonl(line, message):
    with pytest.raises(DataError, match=message):
        read_jsonl(f'{{"text": "fine"}}\n{line}\n', "x.jsonl")


def test_json_names_the_line_where_an_object_starts():
    rows = read_json('[\n  {"a": 1},\n  {\n    "a": [2,\n 3]\n  },\n\n  {"a": 4}\n]\n', "x.json")
    assert [row.values["a"] for row in rows] == [1, [2, 3], 4]
    assert wheres(rows) == ["x.json:2", "x.json:3", "x.json:8"]
    assert read_json(" [ ] ", "x.json") == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', r"x\.json:1: a list of objects is needed.*\.jsonl"),
        ('[\n{"a": 1}\n{"a": 2}]', r"x\.json:3: broken JSON: ',' or '\]'"),
        ('[\n{"a": 1},\n{"a": }]', r"x\.json:3: broken JSON"),
        ('[\n{"a": 1},\n7]', r"x\.json:3: 7 where an object"),
        ('[{"a": 1}', r"x\.json:1: broken JSON"),
        ('[{"a": 1}]\n\nrest', r"x\.json:3: more text after"),
    ],
)
def test_faulty_json(content, message):
    with pytest.raises(DataError, match=message):
        read_json(content, "x.json")


def test_txt_is_one_document_a_line_or_one_in_all():
    content = "one\n\n  \ntwo\r\n"
    lines = read_txt(content, "x.txt", "line")
    assert [(row.values["text"], row.where) for row in lines] == [("one", "x.txt:1"), ("two", "x.txt:4")]
    (whole,) = read_txt(content, "x.txt", "file")
    assert whole.values["text"] == content
    assert read_txt(" \n", "x.txt", "file") == ()


def test_txt_with_a_separator_is_cut_there_and_keeps_its_lines() -> None:
    rows = read_txt(
        "\nOnce.\nThere.\n<|end|>\n\n Two \n<|end|>\n \n<|end|>Three", "x.txt", "line", "<|end|>"
    )
    assert [(row.values["text"], row.where) for row in rows] == [
        ("Once.\nThere.", "x.txt:2"),
        ("Two", "x.txt:6"),
        ("Three", "x.txt:9"),
    ]
