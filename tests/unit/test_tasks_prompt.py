"""From documents to prompts and requests, and from results to outcomes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tlscale.evaluation.requests import (
    Choices,
    ChoiceScores,
    Generated,
    Generation,
    Likelihood,
    LikelihoodScore,
    Rolling,
    RollingScore,
)
from tlscale.evaluation.tasks.outcome import outcome
from tlscale.evaluation.tasks.prompt import Style, item
from tlscale.evaluation.tasks.task import Document, Rows, Task

PLAIN = Style()
SHOT = Document(query="Q: 1+1\nA:", choices=("2", "3"), answer=0, id="s", where="t:1")
ASKED = Document(
    query="Q: 2+2\nA:", choices=("five", "4"), answer=1, id="7", where="t:2", tags={"of": "sums"}
)


def task(**changes: Any) -> Task:
    base = Task(
        name="sums", summary="", kind="choice", test=(Rows(path="x.csv"),), document=lambda row: ASKED,
        metrics=("acc",), description="Add.\n\n", unconditional="A:",
    )  # fmt: skip
    return replace(base, **changes)


def test_description_examples_and_question_make_the_context() -> None:
    made = item(task(), ASKED, (SHOT,), PLAIN)
    assert made.requests == (Choices("7", "Add.\n\nQ: 1+1\nA: 2\n\nQ: 2+2\nA:", (" five", " 4"), None),)
    own = replace(ASKED, description="Subject: sums.\n\n")
    (request,) = item(task(separator="\n"), own, (SHOT,), Style(pmi=True)).requests
    assert request == Choices("7", "Subject: sums.\n\nQ: 1+1\nA: 2\nQ: 2+2\nA:", (" five", " 4"), "A:")


def test_chat_examples_are_turns_and_the_answer_needs_no_blank() -> None:
    seen: list[list[dict[str, str]]] = []

    def render(conversation: list[dict[str, str]]) -> str:
        seen.append(conversation)
        return "|".join(f"{turn['role']}:{turn['content']}" for turn in conversation) + "|assistant:"

    (request,) = item(task(), ASKED, (SHOT,), Style(render)).requests
    assert [turn["role"] for turn in seen[0]] == ["system", "user", "assistant", "user"]
    assert isinstance(request, Choices)
    assert request.options == ("five", "4")
    assert request.context == "system:Add.|user:Q: 1+1\nA:|assistant:2|user:Q: 2+2\nA:|assistant:"


def test_every_kind_asks_in_its_own_way() -> None:
    schema = Document(contexts=("The cat", "The dog"), choices=("barks.",), answer=1, id="1")
    assert item(task(description=""), schema, (schema,), PLAIN).requests == tuple(
        Likelihood("1", f"The dog barks.\n\n{context}", " barks.") for context in schema.contexts
    )
    ends = Document(query="The sun", answer="sets", id="2")
    likelihood = item(task(kind="likelihood", description=""), ends, (), PLAIN)
    assert likelihood.requests == (Likelihood("2", "The sun", " sets"),)
    solved = Document(query="Q", answer="4", shown="2+2=4 #### 4", id="3")
    sums = task(kind="generation", stop=("Q:",), max_new_tokens=9, description="")
    expected = Generation("3", "Q 2+2=4 #### 4\n\nQ", ("Q:",), 9)
    assert item(sums, solved, (solved,), PLAIN).requests == (expected,)
    rolling = item(task(kind="rolling"), Document(text="all of it", id="4"), (), PLAIN)
    assert rolling.requests == (Rolling("4", "all of it"),)


def test_contextual_calibration_asks_about_nothing_after_the_same_examples() -> None:
    labels = task(kind="classification", prompt=lambda text: f"T: {text}\nL:", description="")
    found = item(labels, replace(ASKED, text="x"), (SHOT,), Style(contextual=True)).requests
    assert [r.context for r in found if isinstance(r, Choices)] == [
        f"Q: 1+1\nA: 2\n\n{end}" for end in ("Q: 2+2\nA:", "T: N/A\nL:", "T: [MASK]\nL:", "T: \nL:")
    ]


def test_choices_are_judged_by_each_normalisation() -> None:
    made = item(task(), ASKED, (), Style(pmi=True))
    # "five" is likelier as it stands, "4" by token and after what it is worth by itself
    scores = ChoiceScores((-3.0, -4.0), (1, 4), (-1.0, -3.0))
    found = outcome(task(), made, [scores], 3, ())
    assert found.values is not None
    assert {name: found.values[name] for name in ("acc", "acc_norm", "acc_norm_tokens", "acc_pmi")} == {
        "acc": 0.0, "acc_norm": 0.0, "acc_norm_tokens": 1.0, "acc_pmi": 1.0,
    }  # fmt: skip
    assert (found.item, found.where, found.prediction, found.reference) == (3, "t:2", "0", "1")
    assert found.scores == (-3.0, -4.0)
    assert found.tags == {"of": "sums"}
    assert found.nll == pytest.approx(math.log(1 + math.exp(1.0)))
    longer = replace(ASKED, choices=("a much longer answer", "4"))
    by_character = outcome(
        task(), item(task(), longer, (), PLAIN), [ChoiceScores((-8.0, -5.0), (4, 1))], 0, ()
    )
    assert by_character.values is not None
    assert (by_character.values["acc"], by_character.values["acc_norm"]) == (1.0, 0.0)


def test_several_right_answers_share_the_probability() -> None:
    both = replace(ASKED, choices=("a", "b", "c"), right=(0, 2), answer=0)
    scores = ChoiceScores((math.log(0.2), math.log(0.5), math.log(0.3)), (1, 1, 1))
    found = outcome(task(), item(task(), both, (), PLAIN), [scores], 0, ())
    assert found.values is not None
    assert found.values["mc2"] == pytest.approx(0.5)
    assert found.values["acc"] == 0.0


def test_the_other_kinds_are_judged() -> None:
    schema = Document(contexts=("a", "b"), choices=("c",), answer=1)
    two = [LikelihoodScore(-2.0, False, 1), LikelihoodScore(-1.0, False, 1)]
    found = outcome(task(), item(task(), schema, (), PLAIN), two, 0, ())
    assert found.values is not None
    assert found.values["acc"] == 1.0
    last = task(kind="likelihood")
    said = outcome(
        last,
        item(last, Document(query="x", answer="y"), (), PLAIN),
        [LikelihoodScore(-2.0, True, 3)],
        0,
        (),
    )
    assert (said.values, said.nll, said.tokens) == ({"acc": 1.0, "words": 1.0}, 2.0, 3)
    text = task(kind="rolling")
    whole = outcome(text, item(text, Document(text="a b"), (), PLAIN), [RollingScore(-6.0, 4, 2, 3)], 0, ())
    assert (whole.nll, whole.tokens, whole.values) == (6.0, 4, {"words": 2.0, "bytes": 3.0})
    number = task(kind="generation", extract=lambda text: text.split()[-1])
    solved = item(number, Document(query="x", answer="it is 4"), (), PLAIN)
    assert outcome(number, solved, [Generated("well, 4", 3)], 0, ()).correct
    assert not outcome(number, solved, [Generated("well, 5", 3)], 0, ()).correct
