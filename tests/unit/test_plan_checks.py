"""What doesn't go together is refused with what does; what may surprise is noted; plans can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.facts import LABELS, llama
from tlscale.errors import PlanError
from tlscale.planning.checks import CLASHES, check
from tlscale.planning.item import MemoryItem
from tlscale.planning.render import count, size, table
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_HEAD, Context, stage
from tlscale.planning.types import (
    Adapter,
    Batch,
    DataFacts,
    Facts,
    Head,
    ParamRule,
    Plan,
    PlannedStage,
    Stage,
    World,
)
from tlscale.recipe.types import Recipe

CPU = World(device="cpu", processes=1, dtype="float32", memory_per_device=None)
LORA = Adapter(peft_type="LORA", fields={"r": 4})
PREFIX = Adapter(peft_type="PREFIX_TUNING", fields={"num_virtual_tokens": 4})
ROWS = {"path": "rows.csv", "text": "text"}
PACKED = {"train": ROWS, "test": ROWS, "packing": True}
ADAPT: dict[str, Any] = {"adapter": LORA, "rules": (FREEZE_ALL,)}
POOLED: dict[str, Any] = {"head": Head(kind="pooled"), "rules": (TRAIN_HEAD, FREEZE_ALL)}
IMAGES = llama(labels=LABELS).model_copy(
    update={
        "architecture": llama().architecture.model_copy(
            update={"vocab_size": 0, "layers": 0, "max_length": 0}
        )
    }
)


def recipe_of(task: str = "causal-lm", **parts: Any) -> Recipe:
    model = {"model_name_or_path": "tiny", "task": task, **parts.pop("model", {})}
    written = {"data": {"train": ROWS, "test": ROWS}, "strategy": {"kind": "full"}, **parts}
    return Recipe.model_validate({"version": 1, "name": "t", "model": model, **written}, strict=False)


def stage_of(recipe: Recipe, facts: Facts, **slots: Any) -> Stage:
    return stage(Context(recipe, recipe.train, facts), **slots)


QUANTIZED = {"model": {"quantization": "nf4"}}
CLASSIFY = "sequence-classification"
CASES: list[tuple[str, Recipe, Facts, dict[str, Any] | None, str]] = [
    (
        "scratch in 4 bits",
        recipe_of(model={"quantization": "nf4", "init": "scratch"}),
        llama(),
        {},
        r"model\.quantization: training from scratch",
    ),
    ("full in 4 bits", recipe_of(**QUANTIZED), llama(), {}, r"can't be trained; use strategy kind: peft"),
    (
        "convolutions in 8 bits",
        recipe_of("image-classification", model={"quantization": "int8"}),
        IMAGES,
        {"rules": (TRAIN_HEAD, FREEZE_ALL)},
        "only linear layers are quantized",
    ),
    ("pooled language model", recipe_of(), llama(), POOLED, "strategy: a head over pooled features"),
    (
        "features from scratch",
        recipe_of(CLASSIFY, model={"init": "scratch"}),
        llama(labels=LABELS),
        POOLED,
        "features of a network that was never trained",
    ),
    (
        "adapter from scratch",
        recipe_of(model={"init": "scratch"}),
        llama(),
        ADAPT,
        r"model\.init: an adapter changes little",
    ),
    (
        "recomputed features",
        recipe_of(CLASSIFY),
        llama(labels=LABELS),
        {**POOLED, "gradient_checkpointing": True},
        "features are computed once",
    ),
    (
        "recomputed prefix",
        recipe_of(),
        llama(),
        {**ADAPT, "adapter": PREFIX, "gradient_checkpointing": True},
        "prefix tuning hands its keys",
    ),
    (
        "packed labels",
        recipe_of(CLASSIFY, data=PACKED),
        llama(labels=LABELS),
        {},
        r"data\.packing: only next-token prediction",
    ),
    (
        "packed prefix",
        recipe_of(data=PACKED),
        llama(),
        {**ADAPT, "adapter": PREFIX},
        r"data\.packing: the method puts its own tokens",
    ),
    (
        "float16 on a cpu",
        recipe_of(model={"dtype": "float16"}),
        llama(),
        {},
        r"model\.dtype: torch doesn't train in float16",
    ),
    ("one class", recipe_of(CLASSIFY), llama(labels=("yes",)), {}, "all rows have the same label"),
    (
        "text for images",
        recipe_of("image-classification"),
        llama(labels=LABELS),
        {},
        "reads text, neither images nor sound",
    ),
    ("images for sound", recipe_of("audio-classification"), IMAGES, {}, "read by spectrogram models"),
    ("images for text", recipe_of(CLASSIFY), IMAGES, {}, "has no vocabulary"),
    ("no training rows", recipe_of(data={"test": ROWS}), llama(), {}, r"data\.train: the strategy trains"),
    ("no rows", recipe_of(data={}), llama(), None, r"data: nothing is trained.*; give data\.test"),
    (
        "too long",
        recipe_of(data={"train": ROWS, "test": ROWS, "max_length": 4096}),
        llama(),
        {},
        "set it to 128 or less",
    ),
]


@pytest.mark.parametrize(
    ("recipe", "facts", "slots", "message"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_clashes_are_refused(
    recipe: Recipe, facts: Facts, slots: dict[str, Any] | None, message: str
) -> None:
    stages = () if slots is None else (stage_of(recipe, facts, **slots),)
    with pytest.raises(PlanError, match=message):
        check(recipe, facts, stages, CPU)


def test_every_clash_has_a_case() -> None:
    assert len(CASES) == len(CLASHES)


@pytest.mark.parametrize(
    ("task", "labels", "metric", "message"),
    [
        (
            "causal-lm",
            (),
            "accuracy",
            r"evaluate\.target: accuracy doesn't apply to causal-lm; allowed: nll, perp",
        ),
        ("causal-lm", (), "f1_macro", r"f1_macro doesn't apply to causal-lm"),
        (CLASSIFY, LABELS, "exact_match", r"exact_match doesn't apply to sequence-classification"),
    ],
)
def test_metrics_must_fit_the_task(task: str, labels: tuple[str, ...], metric: str, message: str) -> None:
    recipe, facts = recipe_of(task, evaluate={"target": (metric,)}), llama(labels=labels)
    with pytest.raises(PlanError, match=message):
        check(recipe, facts, (stage_of(recipe, facts),), CPU)


def test_all_clashes_are_told_at_once() -> None:
    recipe = recipe_of(
        model={"quantization": "nf4", "dtype": "float16"}, evaluate={"target": ("accuracy",)}
    )
    with pytest.raises(PlanError) as caught:
        check(recipe, llama(), (stage_of(recipe, llama()),), CPU)
    assert len(str(caught.value).splitlines()) == 3


def test_a_tracker_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlscale.planning.checks.util.find_spec", lambda name: None)
    recipe = recipe_of(train={"report_to": ("wandb",)})
    with pytest.raises(PlanError, match=r"train\.report_to: wandb is not installed; pip install wandb"):
        check(recipe, llama(), (stage_of(recipe, llama()),), CPU)


def test_what_works_is_let_through_with_notes() -> None:
    recipe = recipe_of(data={"train": ROWS}, **QUANTIZED)
    notes = check(recipe, llama(), (stage_of(recipe, llama(), **ADAPT),), CPU)
    assert [note.split()[0] for note in notes] == ["quantized", "data.test"]
    plain = recipe_of()
    assert check(plain, llama(), (stage_of(plain, llama()),), CPU) == ()
    assert check(plain, llama(), (), CPU) == ()


def test_norms_of_a_quantized_base_may_train() -> None:
    recipe = recipe_of(**QUANTIZED)
    norms = ParamRule(pattern=r".*norm\.weight", lr_scale=1.0)
    check(recipe, llama(), (stage_of(recipe, llama(), rules=(norms, FREEZE_ALL)),), CPU)


def plan_of(memory: int) -> Plan:
    recipe, facts = recipe_of(), llama()
    planned = PlannedStage(
        stage=stage_of(recipe, facts, **ADAPT),
        decisions=(),
        batch=Batch(micro=4, accumulation=2, world=2),
        trainable=41_900_000,
        total=8_070_000_000,
        exact=True,
        steps=1200,
        memory=(
            MemoryItem(name="weights", bytes=memory, note="nf4"),
            MemoryItem(name="logits", bytes=500_000_000),
        ),
    )
    return Plan(
        fingerprint="0" * 16,
        recipe=recipe,
        seed=0,
        facts=facts,
        data=(DataFacts(role="train", where="rows.csv", rows=10_003, format="text"),),
        world=CPU.model_copy(update={"memory_per_device": 8_000_000_000}),
        stages=(planned,),
        max_length=128,
        notes=("bfloat16 is slow here",),
        versions={},
    )


def test_a_plan_reads_as_text() -> None:
    text = table(plan_of(5_600_000_000))
    assert "trains 41.9 M of 8.07 B (0.52%)" in text
    assert "16 rows = 4 x 2 x 2 (rows x passes x processes), 128 tokens at most   1,200 steps" in text
    assert "train    rows.csv   10,003 rows, text" in text
    assert "memory per device (estimate)" in text
    assert "  total                             6.1   of 8" in text
    assert "note: bfloat16 is slow here" in text
    assert "does not fit" not in text


def test_a_plan_that_does_not_fit_says_by_how_much() -> None:
    assert "It does not fit: 1.5 GB too much." in table(plan_of(9_000_000_000))


def test_figures() -> None:
    assert [count(n) for n in (7, 8_960, 260_032, 8_070_000_000)] == ["7", "8.96 k", "260 k", "8.07 B"]
    assert [size(n) for n in (250_000_000, 80_000_000_000)] == ["0.25", "80.0"]


def test_dropout_that_lets_almost_nothing_through_is_noted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"classifier_dropout_prob": 0.999, "attention_dropout": 0.1}')
    facts = llama().model_copy(update={"folder": str(tmp_path)})
    recipe = recipe_of()
    (note,) = [n for n in check(recipe, facts, (stage_of(recipe, facts),), CPU) if "drop" in n]
    assert "model.config.classifier_dropout_prob=0.001" in note
    mended = recipe_of(model={"config": {"classifier_dropout_prob": 0.001}})
    assert not any("drop" in n for n in check(mended, facts, (stage_of(mended, facts),), CPU))
