"""Documents and completions: windows, masks, BOS and EOS, and what is cut."""

from __future__ import annotations

import dataclasses

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.unit.characters import BOS, EOS, SPECIAL, characters, ids_of
from tlscale.data.examples import prepare
from tlscale.errors import DataError
from tlscale.recipe.types import Source
from tlscale.sources import Row, read, split

FULL = characters(bos_token="<s>", eos_token="</s>")


def made(rows, source, tokenizer=FULL, **settings):
    options = {"max_length": 64, "overflow": "cut", "loss_on": "completion", **settings}
    return prepare(rows, source, task="causal-lm", processor=tokenizer, labels=(), **options)


TEXT = Source(path="x.jsonl", text="text")
TASK = Source(path="x.jsonl", prompt="prompt", completion="completion")


def document(text, **fields):
    return Row({"text": text}, "x.jsonl:1", **fields)


def task(prompt, completion):
    return Row({"prompt": prompt, "completion": completion}, "x.jsonl:7")


def learned(example):
    return [t for t, on in zip(example.tokens, example.loss, strict=True) if on]


def test_a_document_has_one_bos_and_one_eos():
    (example,) = made([document("abc")], TEXT).examples
    assert example.tokens == [BOS, *ids_of("abc"), EOS]
    assert example.loss == [False, True, True, True, True]
    assert example.text == "abc"


def test_bos_and_eos_are_never_doubled_and_never_invented():
    (example,) = made([document("<s>abc</s>")], TEXT).examples
    assert example.tokens == [BOS, *ids_of("abc"), EOS]
    (bare,) = made([document("abc")], TEXT, characters()).examples
    assert bare.tokens == ids_of("abc")
    assert bare.loss == [False, True, True]


def test_a_document_that_goes_on_elsewhere_has_no_eos():
    (example,) = made([document("abc", ends=False)], TEXT).examples
    assert example.tokens == [BOS, *ids_of("abc")]


@pytest.mark.parametrize("length", range(1, 24))
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_windows_learn_every_token_once_and_lose_none(length, size):
    text = "abcdefghijklmnopqrstuvwxyz"[:length]
    found = made([document(text)], TEXT, max_length=size)
    whole = [BOS, *ids_of(text), EOS]
    assert [t for e in found.examples for t in learned(e)] == whole[1:]
    assert all(len(e.tokens) <= size and not e.loss[0] for e in found.examples)
    for before, after in zip(found.examples, found.examples[1:], strict=False):
        assert before.tokens[-1] == after.tokens[0]
    assert found.report.supervised_tokens == len(whole) - 1
    assert (found.report.cut_tokens, found.report.dropped_rows) == (0, 0)
    texts = [e.text for e in found.examples]
    assert texts[0] + "".join(t[1:] for t in texts[1:]) == text


def test_blank_documents_give_nothing_and_are_counted():
    found = made([document("abc"), document(" \n")], TEXT)
    assert (found.report.rows, found.report.examples, found.report.dropped_rows) == (2, 1, 1)


def test_loss_is_on_the_completion_and_its_eos():
    (example,) = made([task("Q: 2+2 A:", " 4")], TASK).examples
    assert example.tokens == [BOS, *ids_of("Q: 2+2 A: 4"), EOS]
    assert learned(example) == [*ids_of(" 4"), EOS]
    assert example.tokens[: example.prompt_tokens] == [BOS, *ids_of("Q: 2+2 A:")]
    assert (example.text, example.reference, example.where) == ("Q: 2+2 A:", " 4", "x.jsonl:7")


def test_loss_on_all_leaves_out_bos_alone():
    (example,) = made([task("ab", "cd")], TASK, loss_on="all").examples
    assert example.loss == [False, True, True, True, True, True]
    assert example.prompt_tokens == 3


def test_a_completion_that_brings_its_own_eos_gets_no_second_one():
    (example,) = made([task("ab", "cd</s>")], TASK).examples
    assert example.tokens == [BOS, *ids_of("abcd"), EOS]
    assert learned(example) == [*ids_of("cd"), EOS]


def test_cutting_takes_the_beginning_of_the_prompt_first():
    rows = [task("0123456789", "abc")]
    found = made(rows, TASK, max_length=8)
    (example,) = found.examples
    assert example.tokens == [BOS, *ids_of("789abc"), EOS]
    assert learned(example) == [*ids_of("abc"), EOS]
    assert example.prompt_tokens == 4
    assert (found.report.cut_rows, found.report.cut_tokens, found.report.dropped_rows) == (1, 7, 0)


def test_cutting_takes_the_end_of_the_completion_next():
    found = made([task("0123456789", "abcdef")], TASK, max_length=5)
    (example,) = found.examples
    assert example.tokens == [BOS, *ids_of("abcd")]
    assert learned(example) == ids_of("abcd")
    assert found.report.cut_tokens == 13
    (bare,) = made([task("0123456789", "abcdef")], TASK, characters(), max_length=5).examples
    assert bare.tokens == ids_of("9abcd")
    assert learned(bare) == ids_of("abcd")


@pytest.mark.parametrize("size", range(2, 16))
@pytest.mark.parametrize("special", [{}, {"bos_token": "<s>"}, {"eos_token": "</s>"}])
def test_cut_tokens_are_counted_exactly(size, special):
    tokenizer = characters(**special)
    full = len(made([task("01234", "abcde")], TASK, tokenizer).examples[0].tokens)
    found = made([task("01234", "abcde")], TASK, tokenizer, max_length=size)
    assert found.report.tokens == min(size, full)
    assert found.report.cut_tokens == max(0, full - size)
    assert found.report.cut_rows == (full > size)


def test_long_rows_can_be_dropped_or_refused():
    rows = [task("ab", "c"), task("0123456789", "abc")]
    dropped = made(rows, TASK, max_length=8, overflow="drop")
    assert (dropped.report.examples, dropped.report.dropped_rows, dropped.report.cut_tokens) == (1, 1, 0)
    with pytest.raises(DataError, match=r"x\.jsonl:7: 15 tokens, but data\.max_length is 8"):
        made(rows, TASK, max_length=8, overflow="error")


def test_split_at_cuts_after_its_first_occurrence():
    source = Source(path="x.jsonl", text="text", split_at="A:")
    (example,) = made([document("Q A: yes A: no")], source).examples
    assert (example.text, example.reference) == ("Q A:", " yes A: no")
    with pytest.raises(DataError, match=r"x\.jsonl:1: split_at 'A:' isn't in the text"):
        made([document("Q only")], source)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (task("ab", ""), r"x\.jsonl:7: the completion is empty"),
        (task("ab", None), r"x\.jsonl:7: column 'completion' is null; text is needed"),
        (task(3, "c"), r"x\.jsonl:7: column 'prompt' is 3; text is needed"),
        (Row({"prompt": "a", "answer": "b"}, "x.jsonl:8"), r"x\.jsonl:8: no column 'completion'"),
    ],
)
def test_rows_that_can_not_be_used(row, message):
    with pytest.raises(DataError, match=message):
        made([task("a", "b"), row], TASK)


def test_formats_that_the_task_can_not_use():
    labelled = Source(path="x.csv", text="text", label="label")
    with pytest.raises(
        DataError, match="format is classification, which task causal-lm can't use; allowed: text"
    ):
        made([Row({"text": "a", "label": "b"}, "x.csv:2")], labelled)
    with pytest.raises(DataError, match=r"max_length: 1; at least 2"):
        made([document("abc")], TEXT, max_length=1)
    with pytest.raises(DataError, match="no rows"):
        made([], TEXT)


def test_a_token_over_the_boundary_belongs_to_the_completion():
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, "a", "b", "c", "bc"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [("b", "c")])), eos_token="</s>"
    )
    (example,) = made([task("ab", "ca")], TASK, tokenizer).examples
    assert tokenizer.convert_ids_to_tokens(example.tokens) == ["a", "bc", "a", "</s>"]
    assert example.loss == [False, True, True, True]
    assert example.prompt_tokens == 1


@pytest.fixture(scope="module")
def stories(data_root):
    return AutoTokenizer.from_pretrained(data_root / "stories260k")


def test_real_tokenizer_with_byte_tokens(stories):
    (example,) = made([task("Say naïve ☃:", " déjà ☃ vu")], TASK, stories).examples
    assert example.tokens.count(stories.bos_token_id) == 1
    assert example.tokens[0] == stories.bos_token_id
    assert example.tokens[-1] == stories.eos_token_id
    assert stories.decode(learned(example), skip_special_tokens=True).strip() == "déjà ☃ vu"
    assert example.tokens[: example.prompt_tokens] == stories("Say naïve ☃:")["input_ids"]


def test_real_shakespeare_is_learned_token_by_token(stories, data_root):
    path = str(data_root / "tinyshakespeare" / "input.txt")
    source = Source(path=path, document="file", span=(0.0, 0.05))
    kept, held_out = split(read(source, seed=0), 0.1, 0)
    found = made(kept, source, stories, max_length=512)
    text = kept[0].values["text"]
    expected = stories(text, add_special_tokens=False, verbose=False)["input_ids"]
    assert [t for e in found.examples for t in learned(e)] == expected
    assert found.examples[0].tokens[0] == stories.bos_token_id
    assert all(len(e.tokens) == 512 for e in found.examples[:-1])
    assert text + held_out[0].values["text"] == read(source, seed=0)[0].values["text"]


def test_real_dolly_masks(stories, data_root):
    path = str(data_root / "dolly_openqa" / "chinkara-open_qa.jsonl")
    source = Source(path=path, split_at="### Assistant:", limit=200)
    found = made(read(source, seed=0), source, stories, max_length=512)
    for example in found.examples:
        assert example.loss == sorted(example.loss)
        assert example.loss.index(True) == example.prompt_tokens
    uncut = [e for e in found.examples if len(e.tokens) < 512]
    assert uncut
    for example in uncut:
        assert (
            stories.decode(learned(example)).strip().removesuffix("</s>").strip()
            == example.reference.strip()
        )
        assert example.tokens[-1] == stories.eos_token_id
    report = found.report
    assert dataclasses.asdict(report)["supervised_tokens"] == sum(sum(e.loss) for e in found.examples)
    assert report.rows == 200 == report.examples + report.dropped_rows
