"""What `tlscale eval` scores: quantized bases, adapters, merged models, encoder-decoders, trained heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification

from tests.integration import scoring_kit, tiny
from tests.integration.test_predictors import setup
from tlscale import plugins
from tlscale.errors import DataError, PlanError, UsageError
from tlscale.evaluation.predictors.language import LanguagePredictor
from tlscale.evaluation.requests import Choices, ChoiceScores
from tlscale.evaluation.scoring.encode import Cutter
from tlscale.evaluation.tasks.prepare import Prepared, Setting, prepare
from tlscale.evaluation.tasks.prompt import Item
from tlscale.evaluation.tasks.run import Place, run
from tlscale.evaluation.tasks.shots import RANKINGS
from tlscale.evaluation.tasks.task import Document, Rows, Task
from tlscale.models.load import load_base, load_processor
from tlscale.models.other import adapted
from tlscale.recipe.evaluate import Calibration, Selection
from tlscale.runs.layout import RunLayout

# peft reads an attribute that transformers has deprecated
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
OPTIONS = (" red", " green", " a blue car", " the black stone")


def quiz(count: int = 12, query: str = "the {thing} number {at} is", **more: Any) -> Prepared:
    """Choices of one and of several tokens after prompts of one shape."""
    rows = [{"thing": tiny.THINGS[at % 8], "at": at} for at in range(count)]

    def document(row: Any) -> Document:
        choices = tuple(option.strip() for option in OPTIONS)
        text = query.format(**row)
        return Document(query=text, choices=choices, answer=row["at"] % 4, text=text)

    place = Rows(path=__file__, reader=lambda path: rows)
    made = Task("quiz", "", "choice", test=(place,), document=document, metrics=("acc",), **more)
    return prepare(made, Setting())


def answers(by: Any, asked: Prepared) -> np.ndarray:
    """Log-likelihoods [items * options]."""
    found = dict(by.answer(asked, range(len(asked.items))))
    rows = [found[at][0] for at in range(len(asked.items))]
    assert all(isinstance(row, ChoiceScores) for row in rows)
    return np.concatenate([row.logprobs for row in rows])


def naive(module: Any, tokenizer: Any, asked: Prepared) -> np.ndarray:
    """The same, each option by itself with nothing shared."""
    pairs = [
        (request.context, option)
        for item in asked.items
        for request in item.requests
        for option in request.options
    ]
    return scoring_kit.plain(module, Cutter(tokenizer, 64).pairs(pairs))


def lm(folder: Path, module: Any = None, **model: Any) -> tuple[LanguagePredictor, Any, list[str]]:
    """The predictor as `tlscale eval` makes it, a plain copy of its model, and what it said."""
    notes: list[str] = []
    made = setup(folder, "lm")
    changed = made.model.model_copy(update=model)
    plain = module or load_base(changed, made.facts, head=None, world=made.world, seed=0, scoring=True)
    by = plugins.load("tlscale.predictors", "lm")(
        replace(made, model=changed, module=module, say=notes.append)
    )
    return by, plain, notes


# LLM.int8 rounds each token's activations by that token's own largest, so sums in another order move it.
@pytest.mark.parametrize(("quantization", "tolerance"), [("nf4", 1e-4), ("int8", 1e-2)])
def test_a_quantized_base_scores_as_its_own_plain_forward(
    quantization: str, tolerance: float, tmp_path: Path
) -> None:
    folder = tiny.llama(tmp_path)
    by, plain, notes = lm(folder, quantization=quantization)
    asked = quiz()
    tokenizer = load_processor(setup(folder, "lm").model, setup(folder, "lm").facts)
    expected = naive(plain, tokenizer, asked)
    np.testing.assert_allclose(answers(by, asked), expected, atol=tolerance)
    assert not notes
    whole = naive(AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer, asked)
    assert abs(whole - expected).max() > 1e-3, "it was not quantized"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_an_adapter_and_its_merged_model_score_alike(quantization: str, tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "base")
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(3)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    for name, parameter in tuned.named_parameters():
        if "lora" in name:
            parameter.data.mul_(8)
    tuned.save_pretrained(tmp_path / "adapter")
    made = setup(folder, "lm")
    model = made.model.model_copy(update={"quantization": quantization})
    base = load_base(model, made.facts, head=None, world=made.world, seed=0, scoring=True)
    over = adapted(base, tmp_path / "adapter")
    by, plain, notes = lm(folder, over)
    asked = quiz()
    tokenizer = load_processor(made.model, made.facts)
    found = answers(by, asked)
    np.testing.assert_allclose(found, naive(plain, tokenizer, asked), atol=1e-4)
    assert not notes
    if quantization == "none":
        merged = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter"
        ).merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        tiny.tokenizer(tmp_path / "merged")
        again, _, _ = lm(tmp_path / "merged")
        np.testing.assert_allclose(answers(again, asked), found, atol=1e-4)
    bare, _, _ = lm(folder)
    assert abs(answers(bare, asked) - found).max() > 0.01


def test_an_encoder_decoder_is_scored_but_not_trained(tmp_path: Path) -> None:
    scoring_kit.model("t5").save_pretrained(tmp_path)
    scoring_kit.tokenizer().save_pretrained(tmp_path)
    by, plain, notes = lm(tmp_path)
    asked = quiz(5)
    found = answers(by, asked)
    expected = []
    for item in asked.items:
        (request,) = item.requests
        for option in request.options:
            ids = torch.tensor([scoring_kit.tokenizer().encode(request.context)])
            labels = torch.tensor([scoring_kit.tokenizer().encode(option, add_special_tokens=False)])
            rows = plain(input_ids=ids, labels=labels).logits[0].log_softmax(-1)
            expected.append(rows.gather(1, labels[0][:, None]).sum().item())
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not notes
    made = setup(tmp_path, "lm")
    with pytest.raises(PlanError, match="T5Config"):
        load_base(made.model, made.facts, head=None, world=made.world, seed=0)


def test_a_trained_head_answers_whatever_order_its_classes_have(tmp_path: Path) -> None:
    tiny.tokenizer(tmp_path)
    names = ("Black", "blue", "GREEN", "red", "spare_class")
    torch.manual_seed(1)
    config = BertConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(tiny.WORDS), max_position_embeddings=64, pad_token_id=0,
        id2label=dict(enumerate(names)), label2id={name: at for at, name in enumerate(names)},
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    texts = [f"the {thing} is {colour}" for thing in tiny.THINGS for colour in tiny.COLOURS]
    place = Rows(path=__file__, reader=lambda path: [{"text": text} for text in texts])

    def task(labels: tuple[str, ...]) -> Prepared:
        def document(row: Any) -> Document:
            return Document(text=row["text"], answer=row["text"].split()[-1])

        made = Task("c", "", "classification", (place,), ("acc",), document, labels=labels)
        return prepare(made, Setting())

    by = plugins.load("tlscale.predictors", "head")(setup(tmp_path, "head"))
    found = answers(by, task(tiny.COLOURS)).reshape(len(texts), 4)
    tokenizer = load_processor(setup(tmp_path, "head").model, setup(tmp_path, "head").facts)
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        rows = model(**inputs).logits.log_softmax(-1)[:, [3, 2, 1, 0]]
    np.testing.assert_allclose(found, rows.numpy(), atol=1e-5)
    with pytest.raises(UsageError, match=r"label 'blacks'.*did you mean black"):
        list(by.answer(task((*tiny.COLOURS, "blacks")), [0]))


def test_too_long_prompts_are_counted_and_refused_above_a_share(tmp_path: Path) -> None:
    by, _, _ = lm(tiny.llama(tmp_path / "model"))
    said: list[str] = []

    def place(share: float) -> Place:
        return Place(RunLayout(tmp_path / "run"), "base", None, 0, 1, list, share, said.append)

    # a word is a token, and the model takes 64 of them
    short = quiz(12)
    items = (*short.items[:10], *(_longer(item) for item in short.items[10:]))
    asked = replace(short, items=items)
    with pytest.raises(DataError) as refused:
        run(asked, by, place(0.1))
    assert "quiz: 2 of 12 prompts (16.7%) are longer than the model's context" in str(refused.value)
    assert "lose their beginning, up to" in str(refused.value)
    assert "evaluate.cut_share allows 10.0%" in str(refused.value)
    assert not (tmp_path / "run").exists()
    (made,) = run(asked, by, place(0.2))
    assert made.n == 12
    assert "2 of 12 prompts" in said[0]


def _longer(item: Item) -> Item:
    (request,) = item.requests
    assert isinstance(request, Choices)
    return replace(item, requests=(replace(request, context="the car is red " * 20 + request.context),))


ALL: tuple[Calibration, ...] = ("contextual", "pmi", "batch", "temperature")


@pytest.mark.parametrize("selection", [None, *RANKINGS])
def test_every_selection_goes_with_every_calibration(selection: Selection | None, tmp_path: Path) -> None:
    by, _, _ = lm(tiny.llama(tmp_path / "model"))
    rows = [
        {"text": f"the {thing} is {colour}", "label": colour}
        for thing in tiny.THINGS
        for colour in tiny.COLOURS
    ]
    task = Task(
        "colours", "", "classification", metrics=("acc",), unconditional=":",
        test=(Rows(path=__file__, reader=lambda path: rows, span=(0.5, 1.0)),),
        train=(Rows(path=__file__, reader=lambda path: rows, span=(0.0, 0.5)),),
        document=lambda row: Document(text=row["text"], answer=row["label"]),
        prompt=lambda text: f"{text} what colour ? :", selection="balanced",
    )  # fmt: skip
    asked = prepare(task, Setting(shots=4, selection=selection, calibrations=ALL))
    answers_shown = {shot.answer for shot in asked.items[0].shots}
    assert len(asked.items[0].shots) == 4
    if selection in (None, "balanced"):
        assert len(answers_shown) == 4, "the task's own selection is taken where none is asked for"
    place = Place(RunLayout(tmp_path / "run"), "base", None, 0, 1, list, 0.1, [].append)
    made = {one.metric: one.value for one in run(asked, by, place)}
    assert set(made) == {
        "acc", "acc_contextual", "acc_pmi", "acc_batch", "nll", "nll_temperature", "ece", "ece_temperature"
    }  # fmt: skip
    assert made["nll_temperature"] < made["nll"] + 0.1
    assert all(np.isfinite(value) for value in made.values())
