"""Words for classes in a pattern's mask: how rows become patterns, and what is learned of them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM

from tests.unit.test_data_masking import CLS, MASK, SEP, wordpiece
from tlscale.data.collate import collate
from tlscale.data.examples import prepare
from tlscale.data.types import Example
from tlscale.engine.terms.pet import make_pet, make_pet_mlm, verbalizers
from tlscale.engine.view import TRAIN, View
from tlscale.errors import DataError, PlanError
from tlscale.models.likelihood import choices
from tlscale.planning.strategy import terms
from tlscale.recipe.objective import Objective
from tlscale.recipe.types import Source
from tlscale.sources import Row

PATTERN = "{text} the {mask} ."
WORDS = {"good": "cat", "bad": "mat", "so-so": "play"}
PLAY, CAT, MAT = 5, 9, 12


def prepared(
    *rows: tuple[str, str], pattern: str = PATTERN, words: dict[str, str] | None = None, **asked: Any
) -> tuple[Example, ...]:
    source = Source(path="x", prompt=pattern, completion="label", words=words)
    cells = [Row({"text": text, "label": label}, f"row {at}") for at, (text, label) in enumerate(rows)]
    given = {"task": "masked-lm", "max_length": 32, "overflow": "cut", **asked}
    return prepare(cells, source, processor=wordpiece(), labels=(), loss_on="all", **given).examples


ROWS = prepared(("sat on", "good"), ("playing", "bad"), ("on", "good"), ("sat", "so-so"), words=WORDS)


def test_a_pattern_hides_its_word_alone() -> None:
    first = ROWS[0]
    assert first.tokens == [CLS, 10, 11, 8, CAT, 13, SEP]
    assert first.shown == [CLS, 10, 11, 8, MASK, 13, SEP]
    assert first.loss == [False, False, False, False, True, False, False]
    assert (first.text, first.reference) == ("sat on the {mask} .", "cat")
    assert verbalizers(ROWS) == (PLAY, CAT, MAT)


def test_an_overlong_pattern_keeps_its_mask() -> None:
    (late,) = prepared(("sat on sat on sat", "cat"), max_length=6)
    assert late.shown == [CLS, 10, 8, MASK, 13, SEP]
    (early,) = prepared(("sat on sat on sat", "cat"), pattern="{mask} {text}", max_length=6)
    assert early.shown == [CLS, MASK, 10, 11, 10, SEP]
    assert prepared(("sat on sat on sat", "cat"), max_length=6, overflow="drop") == ()


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([("sat", "playing")], {}, r"row 0: 'playing' is not one token here but 2, and a mask stands for"),
        ([("sat", "dog")], {}, "row 0: the tokenizer doesn't know 'dog'; choose another word"),
        ([("sat", "good")], {"words": {"god": "cat", "bad": "mat"}}, "row 0: .*did you mean god"),
        ([("sat", "cat")], {"pattern": "{text} the cat"}, r"row 0: the pattern has \{mask\} 0 times"),
        ([("sat", "cat")], {"pattern": "{text} {mask} {mask}"}, r"row 0: the pattern has \{mask\} 2 times"),
        ([("sat", "cat")], {"task": "causal-lm"}, "only a masked language model fills words in"),
    ],
)
def test_what_makes_no_pattern_is_refused(
    rows: list[tuple[str, str]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(*rows, **changes)


def test_equal_words_are_refused() -> None:
    with pytest.raises(ValidationError, match="words has one word for two values"):
        Source(path="x", words={"good": "cat", "bad": "cat"})
    with pytest.raises(PlanError, match="1 different words in the training rows; at least 2"):
        verbalizers(prepared(("sat", "cat"), ("on", "cat")))
    with pytest.raises(PlanError, match="needs rows with a pattern and a word"):
        verbalizers([Example(where="x", tokens=[1, 2], loss=[False, True])])


def test_the_terms_share_the_weight_as_in_the_paper() -> None:
    assert [(t.name, t.weight) for t in terms(Objective.model_validate({"pet": {}}))] == [
        ("pet", 0.9999), ("pet_mlm", 0.0001)
    ]  # fmt: skip
    assert [t.name for t in terms(Objective.model_validate({"pet": {"mlm": 0}, "rdrop": {}}))] == [
        "pet", "rdrop"
    ]  # fmt: skip


def bert() -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=14,
    )  # fmt: skip
    return BertForMaskedLM(config).eval()


class Setting:
    """All that the term looks at."""

    examples = ROWS


def test_the_loss_is_the_cross_entropy_over_the_words_in_the_mask() -> None:
    module, batch = bert(), collate(ROWS, task="masked-lm", pad_id=0)
    setting: Any = Setting()
    term = make_pet({}, setting)
    with torch.no_grad():
        total = float(term.total(View(module, {TRAIN: batch})))
        logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    by_hand = 0.0
    for row, right in enumerate((CAT, MAT, CAT, PLAY)):
        (place,) = (batch["input_ids"][row] == MASK).nonzero().flatten().tolist()
        scores = [float(logits[row, place, word]) for word in (PLAY, CAT, MAT)]
        by_hand -= float(logits[row, place, right]) - float(torch.tensor(scores).logsumexp(0))
    assert total == pytest.approx(by_hand, rel=1e-6)
    assert term.count({TRAIN: batch}) == 4
    with torch.no_grad():
        smoothed = float(make_pet({"label_smoothing": 0.3}, setting).total(View(module, {TRAIN: batch})))
    chances, _ = choices(logits, batch["labels"], (PLAY, CAT, MAT))
    evenly = -chances.log_softmax(-1).mean(-1).sum()
    assert smoothed == pytest.approx(0.7 * by_hand + 0.3 * float(evenly), rel=1e-5)


def test_hidden_tokens_beside_it_are_those_of_the_unlabelled_texts() -> None:
    module, setting = bert(), Setting()
    term = make_pet_mlm({}, cast(Any, setting))
    texts = collate(ROWS[1:], task="masked-lm", pad_id=0)
    batches = {TRAIN: collate(ROWS[:1], task="masked-lm", pad_id=0), "unlabelled": texts}
    with torch.no_grad():
        found = float(term.total(View(module, batches)))
        logits = module(input_ids=texts["input_ids"], attention_mask=texts["attention_mask"]).logits
    wanted = functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), texts["labels"][:, 1:], ignore_index=-100, reduction="sum"
    )
    assert found == pytest.approx(float(wanted), rel=1e-6)
    assert (term.needs, term.count(batches)) == (("unlabelled",), 3)


def test_other_orders_of_the_words_order_the_answers_alike() -> None:
    module, batch = bert(), collate(ROWS, task="masked-lm", pad_id=0)
    with torch.no_grad():
        logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    scores, right = choices(logits, batch["labels"], (PLAY, CAT, MAT))
    others, wanted = choices(logits, batch["labels"], (MAT, PLAY, CAT))
    assert torch.equal(others, scores[:, [2, 0, 1]])
    assert [(PLAY, CAT, MAT)[at] for at in right] == [(MAT, PLAY, CAT)[at] for at in wanted]
    one, other = functional.cross_entropy(scores, right), functional.cross_entropy(others, wanted)
    assert float(one) == pytest.approx(float(other), rel=1e-6)
    with pytest.raises(DataError, match="a word in its mask that no training row has"):
        choices(logits, batch["labels"], (PLAY, CAT))
