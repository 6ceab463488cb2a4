"""Planted copies are found, each in its own way, and ordinary texts are not."""

from __future__ import annotations

from tlscale.evaluation.tasks.contamination import known, overlaps
from tlscale.evaluation.tasks.task import Document

PASSAGE = (
    "In the early morning the old fisherman rowed his small boat far out on the quiet lake, and he thought "
    "of the winters when the ice was thick enough to carry a horse"
)
FEES = (
    "please tell me which fees you take when i send money to my sister in spain by card or from my account"
)
TRAINING = known(
    [
        "How do I locate my card?",
        f"Yesterday somebody read to us. {PASSAGE}. Then we went home.",
        FEES,
        "word " * 3000,
    ]
)


def how(text: str, **more: str) -> str | None:
    return overlaps([Document(text=text, answer=None, **more)], TRAINING).get(0)


def test_the_same_words_are_exact_whatever_case_and_marks() -> None:
    assert how("how do i LOCATE my card") == "exact"


def test_a_passage_inside_a_longer_text_is_an_ngram() -> None:
    assert how(PASSAGE) == "ngram"
    assert how("the ice was thick enough to carry a horse") == "ngram"


def test_a_changed_word_in_the_middle_is_a_near_duplicate() -> None:
    changed = FEES.replace("money", "cash")
    assert changed != FEES
    assert how(changed) == "minhash"
    assert how(" ".join(FEES.split()[::-1])) is None


def test_ordinary_texts_are_clean() -> None:
    for text in (
        "I locate my card",
        "He thought of the winters",
        "What fees do you take when I send money?",
    ):
        assert how(text) is None, text


def test_the_question_with_its_answer_is_looked_for() -> None:
    asked = Document(query="How do I locate", choices=("my card?", "your card?"), answer=0)
    other = Document(query="How do I locate", choices=("my card?", "your card?"), answer=1)
    assert overlaps([asked, other], TRAINING) == {0: "exact"}
