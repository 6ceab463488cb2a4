"""The tree of prefixes gives each model its own scores, whatever the budget, ranks or interruptions."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.scoring_kit import FAMILIES, WITHOUT_TREES, model, plain, tokenizer
from tests.unit.test_scoring_schedule import paths
from tlscale.errors import DataError
from tlscale.evaluation.requests import (
    Choices,
    ChoiceScores,
    Generated,
    Generation,
    Likelihood,
    Request,
    Rolling,
    RollingScore,
)
from tlscale.evaluation.scoring.causal import TreeExecutor
from tlscale.evaluation.scoring.encode import Path
from tlscale.evaluation.scoring.scorer import ModelScorer, Share

SHOTS = "Q: where do they go? A: to the lake. Q: what is there? A: a table be rest. "


def requests() -> list[Request]:
    found: list[Request] = []
    for item in range(7):
        question = f"{SHOTS}Q: what {'to ' * item}does number {item} do? A:"
        found.append(Choices(str(item), question, (" to rest", " able", " a far longer answer"), "A:"))
    found.append(Likelihood("same", SHOTS, "Q"))
    found.append(Likelihood("blank", "they walk ", "to the end"))
    found.append(Likelihood("empty", "", "able to rest"))
    found.append(Likelihood("merge", "they are abl", "e rest"))
    found.append(Rolling("text", "A table is to be at rest. " * 30))
    found.append(Rolling("nothing", ""))
    return found


def scores(family: str, asked: list[Request], **options: Any) -> list[Any]:
    found = dict(ModelScorer(model(family), tokenizer(), **options).score(asked))
    assert sorted(found) == list(range(len(asked)))
    return [found[i] for i in range(len(asked))]


def numbers(results: list[Any]) -> np.ndarray:
    found: list[float] = []
    for result in results:
        if isinstance(result, ChoiceScores):
            found += [*result.logprobs, *(result.unconditional or ())]
        else:
            found.append(result.logprob)
    return np.asarray(found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [40, 512])
def test_a_family_scores_as_its_plain_forward_does(family: str, budget: int) -> None:
    notes: list[str] = []
    scorer = ModelScorer(model(family), tokenizer(), budget=budget, note=notes.append)
    found = dict(scorer.score(requests()))
    choices = [r for r in requests() if isinstance(r, Choices)]
    pairs = [(r.context, option) for r in choices for option in r.options]
    expected = plain(model(family), scorer.cutter.pairs(pairs))
    got = np.concatenate([found[i].logprobs for i in range(len(choices))])
    np.testing.assert_allclose(got, expected, atol=1e-4)
    windows = scorer.cutter.rolling(["A table is to be at rest. " * 30])[0]
    assert len(windows) == 2
    rolled = next(r for r in found.values() if isinstance(r, RollingScore) and r.tokens)
    np.testing.assert_allclose(rolled.logprob, plain(model(family), windows).sum(), rtol=1e-5)
    assert not notes


@pytest.mark.parametrize("family", WITHOUT_TREES)
def test_a_family_that_takes_no_tree_is_computed_plainly_and_says_so(family: str) -> None:
    notes: list[str] = []
    asked = requests()[:-2]
    scorer = ModelScorer(model(family), tokenizer(), note=notes.append)
    found = dict(scorer.score(asked))
    pairs = [(r.context, option) for r in asked if isinstance(r, Choices) for option in r.options]
    expected = plain(model(family), scorer.cutter.pairs(pairs))
    np.testing.assert_allclose(np.concatenate([found[i].logprobs for i in range(7)]), expected, atol=1e-4)
    assert len(notes) == 1
    assert "computed by itself" in notes[0]


class Windowed(torch.nn.Module):
    """A model with a window that its configuration doesn't tell of."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, input_ids: Any, attention_mask: Any = None, **rest: Any) -> Any:
        if attention_mask is not None:
            attention_mask = attention_mask & torch.ones_like(attention_mask).triu(-6)
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, **rest)


def test_a_model_that_takes_the_mask_otherwise_than_it_should_is_found_out() -> None:
    notes: list[str] = []
    asked = requests()[:7]
    found = dict(ModelScorer(Windowed(model("llama")), tokenizer(), note=notes.append).score(asked))
    np.testing.assert_allclose(
        numbers([found[i] for i in range(7)]), numbers(scores("llama", asked)), atol=1e-4
    )
    assert "off by" in notes[0]


@settings(max_examples=25, deadline=None)
@given(found=paths(), budget=st.integers(1, 200))
def test_random_trees_equal_the_plain_scores(found: list[Path], budget: int) -> None:
    notes: list[str] = []
    executor = TreeExecutor(
        model("llama"), found, budget=budget, device=torch.device("cpu"), note=notes.append
    )
    sums = np.zeros(len(found))
    for index in range(len(executor.costs)):
        for owner, logprob, _, _ in executor.run(index).per_path():
            sums[owner] += logprob
    np.testing.assert_allclose(sums, plain(model("llama"), found), atol=2e-4)
    assert not notes


def test_the_number_of_processes_changes_no_digit() -> None:
    asked = [*requests(), Generation("g", SHOTS, (), 5), Generation("h", SHOTS + "Q:", (), 5)]
    alone = scores("llama", asked, budget=40)
    for world in (2, 3):
        rows: list[Any] = []
        for rank in range(world):
            kept: list[Any] = []
            list(
                ModelScorer(
                    model("llama"),
                    tokenizer(),
                    budget=40,
                    share=Share(rank, world, lambda r, k=kept: k.append(r) or []),
                ).score(asked)
            )
            rows.append(kept)
        together = [[row for rank in rows for row in rank[turn]] for turn in range(2)]
        turns = iter(together)
        again = scores("llama", asked, budget=40, share=Share(0, world, lambda _, t=turns: next(t)))
        assert again == alone


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path: File) -> None:
    asked = [*requests(), Generation("g", SHOTS, (), 5)]
    whole = scores("llama", asked, budget=40)
    stream = ModelScorer(model("llama"), tokenizer(), budget=40, journal=tmp_path).score(asked)
    before = [next(stream) for _ in range(6)]
    stream.close()
    (log,) = tmp_path.glob("*.jsonl")
    done = len(log.read_text().splitlines())
    with log.open("a") as file:
        file.write('{"pass": 3, "ans')
    assert scores("llama", asked, budget=40, journal=tmp_path) == whole
    assert all(whole[index] == result for index, result in before)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({row["pass"] for row in rows}) == len(rows) > done
    assert scores("gpt2", asked[:3], budget=40, journal=tmp_path) != whole[:3]


def test_other_weights_find_no_answers_of_the_old_ones(tmp_path: File) -> None:
    asked = requests()[:2]
    first = scores("gpt2", asked, journal=tmp_path)
    weight = model("gpt2").transformer.h[0].ln_1.weight
    with torch.no_grad():
        weight[0] += 1
    try:
        assert scores("gpt2", asked, journal=tmp_path) != first
    finally:
        with torch.no_grad():
            weight[0] -= 1


def test_generated_texts_are_the_models_own(subtests: pytest.Subtests) -> None:
    prompts = [SHOTS + f"Q: what {i}" + "to" * i for i in range(7)] + ["A", "the"]
    for family in ("llama", "gemma2", "mistral", "mamba"):
        with subtests.test(family):
            made = scores(family, [Generation(p, p, (), 12) for p in prompts], budget=96)
            for prompt, text in zip(prompts, made, strict=True):
                assert isinstance(text, Generated)
                ids = torch.tensor([tokenizer().encode(prompt)])
                out = model(family).generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
                )
                assert text.text == tokenizer().decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_a_text_ends_at_the_first_stop_string() -> None:
    (whole,) = scores("llama", [Generation("g", SHOTS, (), 30)])
    stop = whole.text[9:12]
    for stops in ((stop,), ("never", stop)):
        (cut,) = scores("llama", [Generation("g", SHOTS, stops, 30)])
        assert cut.text == whole.text.split(stop)[0]
        assert cut.tokens < whole.tokens


def test_an_encoder_decoder_shares_its_encoder_among_options() -> None:
    asked = [r for r in requests() if isinstance(r, Choices)]
    found = scores("t5", asked, budget=700)
    for request, result in zip(asked, found, strict=True):
        for option, logprob in zip(request.options, result.logprobs, strict=True):
            ids = torch.tensor([tokenizer().encode(request.context)])
            labels = torch.tensor([tokenizer().encode(option, add_special_tokens=False)])
            logits = model("t5")(input_ids=ids, labels=labels).logits[0].log_softmax(-1)
            expected = logits.gather(1, labels[0][:, None]).sum().item()
            assert logprob == pytest.approx(expected, abs=1e-4)


def test_a_context_that_is_too_long_loses_its_beginning_and_is_counted() -> None:
    long = Choices("long", "word " * 300, (" to", " be"))
    scorer = ModelScorer(model("llama"), tokenizer())
    over = scorer.overflow([long, requests()[0]])
    assert over[1] == 0
    assert over[0] == len(tokenizer().encode("word " * 300 + "  be")) - 513 - 1
    assert dict(scorer.score([long]))[0].cut == over[0]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Choices("e", "Q", ("", "a")), "has no tokens: ''"),
        (Likelihood("l", "Q", "word " * 400), "the model's context holds 512"),
        (Generation("g", "Q", (), 600), "allow at most 511"),
    ],
)
def test_what_can_not_be_scored_is_named(request_: Request, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(ModelScorer(model("llama"), tokenizer()).score([request_]))
