"""What is hidden from a masked language model: which tokens, how, and when they are others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from tlscale.data.collate import IGNORED, collate
from tlscale.data.examples import prepare
from tlscale.data.masking import Hiding, hiding
from tlscale.data.types import Example
from tlscale.data.varying import Varied
from tlscale.errors import DataError, PlanError
from tlscale.models.likelihood import guessed, scored, token_nll
from tlscale.recipe.masking import Masking
from tlscale.recipe.types import Source
from tlscale.sources import Row

PIECES = ["play", "##ing", "##ed", "the", "cat", "sat", "on", "mat", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP, MASK = 2, 3, 4


def wordpiece(*, mask: bool = True, end: bool = True) -> Any:
    words = {word: at for at, word in enumerate([*SPECIAL, *PIECES])}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if end else "[CLS] $A", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    extra = {"mask_token": "[MASK]"} if mask else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]",
        **extra,
    )  # fmt: skip


def prepared(*texts: str, max_length: int = 32, end: bool = True) -> tuple[Example, ...]:
    rows = [Row({"text": text}, f"row {at}") for at, text in enumerate(texts)]
    return prepare(
        rows, Source(path="x", text="text"), task="masked-lm", processor=wordpiece(end=end), labels=(),
        max_length=max_length, overflow="cut", loss_on="all",
    ).examples  # fmt: skip


def test_every_token_of_a_document_is_in_one_window() -> None:
    found = prepared("the cat sat on the mat .", " ", max_length=5)
    assert [e.tokens for e in found] == [
        [CLS, 8, 9, 10, SEP],
        [CLS, 11, 8, 12, SEP],
        [CLS, 13, SEP],
    ]
    assert [e.loss for e in found[::2]] == [[False, True, True, True, False], [False, True, False]]
    assert [(e.where, e.text) for e in found[:2]] == [
        ("row 0", "the cat sat "),
        ("row 0 from token 3", "on the mat "),
    ]
    with pytest.raises(DataError, match="2 tokens leave no room for a text beside the model's 2 special"):
        prepared("the cat", max_length=2)


def test_a_last_token_that_would_be_said_after_the_end_is_not_hidden() -> None:
    (row,) = prepared("the cat sat", end=False)
    assert row.tokens == [CLS, 8, 9, 10]
    assert row.loss == [False, True, True, False]
    assert prepared("cat", end=False) == ()


def test_hidden_tokens_are_masked_replaced_or_left_in_the_shares_of_the_paper() -> None:
    how = Hiding(MASK, tuple(range(5, 1005)), 0.15)
    vary = how.by("seed 0")
    example = Example(where="x", tokens=[CLS, *range(100, 200), SEP], loss=[False, *[True] * 100, False])
    kinds: Counter[str] = Counter()
    places: Counter[int] = Counter()
    for number in range(400):
        made = vary(example, 0, number)
        assert made.shown is not None
        assert made.loss is not None
        assert sum(made.loss) == 15
        for at, (shown, token, learned) in enumerate(
            zip(made.shown, example.tokens or (), made.loss, strict=True)
        ):
            assert learned or shown == token
            if learned:
                places[at] += 1
                kinds["mask" if shown == MASK else "same" if shown == token else "other"] += 1
    shares = {kind: count / 6000 for kind, count in kinds.items()}
    assert shares == pytest.approx({"mask": 0.8, "same": 0.1, "other": 0.1}, abs=0.015)
    assert (min(places), max(places), len(places)) == (1, 100, 100)


def test_what_is_hidden_depends_on_name_epoch_and_number_alone() -> None:
    rows = prepared(*["the cat sat on the mat . the cat sat on the mat ."] * 8)
    how = hiding(wordpiece(), Masking(rate=0.3))
    one = [e.shown for e in Varied(rows, how.by("seed 0"), 1)]
    assert one == [e.shown for e in reversed([Varied(rows, how.by("seed 0"), 1)[7 - i] for i in range(8)])]
    assert one != [e.shown for e in Varied(rows, how.by("seed 0"), 2)]
    assert one != [e.shown for e in Varied(rows, how.by("seed 1"), 1)]
    assert len({tuple(shown or ()) for shown in one}) > 4, "rows of one text differ"
    again = how.by("seed 0")(Varied(rows, how.by("seed 0"), 1)[0], 5, 5)
    assert again.shown == one[0], "what is hidden already stays so"


def test_whole_words_are_hidden_together() -> None:
    (row,) = prepared("playing played the cat playing")
    assert row.tokens == [CLS, 5, 6, 5, 7, 8, 9, 5, 6, SEP]
    vary = hiding(wordpiece(), Masking(rate=0.3, whole_words=True)).by("x")
    for number in range(50):
        loss = vary(row, 0, number).loss or []
        assert sum(loss) == 2
        assert all(loss[a] == loss[b] for a, b in ((1, 2), (3, 4), (7, 8)))
    pieces = hiding(wordpiece(), Masking(rate=0.3)).by("x")
    assert any((pieces(row, 0, n).loss or [])[1:3] == [True, False] for n in range(50))
    assert hiding(wordpiece(), Masking()).ordinary == tuple(range(5, 14)), "no special token stands in"
    assert hiding(wordpiece(), Masking(whole_words=True)).goes_on == {6, 7}


@pytest.mark.parametrize("mark", ["\u0120", "\u2581"])
def test_a_mark_where_words_begin_tells_what_goes_on(mark: str) -> None:
    words = models.WordLevel({"[MASK]": 0, f"{mark}play": 1, "ing": 2, f"{mark}the": 3}, unk_token="ing")
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), mask_token="[MASK]")
    assert hiding(made, Masking(whole_words=True)).goes_on == {2}


def test_a_tokenizer_without_a_mask_or_marks_is_refused() -> None:
    with pytest.raises(PlanError, match="has no mask token"):
        hiding(wordpiece(mask=False), Masking())
    words = Tokenizer(models.WordLevel({"[MASK]": 0, "a": 1, "b": 2}, unk_token="a"))
    unmarked = PreTrainedTokenizerFast(tokenizer_object=words, mask_token="[MASK]")
    with pytest.raises(PlanError, match="doesn't mark where words begin"):
        hiding(unmarked, Masking(whole_words=True))


def test_the_loss_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=14,
    )  # fmt: skip
    model = BertForMaskedLM(config).eval()
    vary = hiding(wordpiece(), Masking(rate=0.4)).by("x")
    rows = [
        vary(row, 0, at) for at, row in enumerate(prepared("the cat sat on the mat .", "playing the cat"))
    ]
    batch = collate(rows, task="masked-lm", pad_id=0)
    labels = batch.pop("labels")
    theirs = torch.full_like(labels, IGNORED)
    for at, row in enumerate(rows):
        for place, (token, learned) in enumerate(zip(row.tokens or (), row.loss or (), strict=True)):
            if learned:
                theirs[at, place] = token
    with torch.no_grad():
        made = model(**batch, labels=theirs)
        wanted = model(**batch).logits.argmax(dim=-1)
    assert scored(labels).tolist() == [3, 2]
    assert float(token_nll(made.logits, labels).sum() / 5) == pytest.approx(float(made.loss), rel=1e-6)
    assert guessed(made.logits, labels).tolist() == ((wanted == theirs) & (theirs >= 0)).sum(1).tolist()
