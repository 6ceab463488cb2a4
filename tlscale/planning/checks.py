"""Combinations that don't go together: one table of what, why, and the nearest thing that works."""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path

from tlscale.errors import PlanError
from tlscale.planning import (
    carrying,
    image_checks,
    masking_checks,
    regular_checks,
    sharding_checks,
    stream_checks,
    task_checks,
)
from tlscale.planning.cases import VIRTUAL_TOKENS, Case, Clash
from tlscale.planning.objective_checks import objective_problems
from tlscale.planning.rules import trainable_names
from tlscale.planning.types import Facts, Stage, World
from tlscale.recipe.types import CLASSIFICATION, WITHOUT_TEXT, Recipe

METRICS: dict[str, tuple[str, ...]] = {
    "causal-lm": ("nll", "perplexity", "exact_match"),
    "masked-lm": ("nll", "perplexity", "token_accuracy", "accuracy"),
    "sequence-classification": ("accuracy", "f1_macro", "nll"),
    "image-classification": ("accuracy", "f1_macro", "nll"),
    "audio-classification": ("accuracy", "f1_macro", "nll"),
    "sentence-embedding": ("accuracy",),
}
SPECTROGRAM_MODELS = ("audio-spectrogram-transformer",)
HEAVY_DROPOUT = 0.7
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


CLASHES: tuple[Clash, ...] = (
    Clash(
        "model.quantization",
        lambda c: c.quantized and c.recipe.model.init == "scratch",
        "training from scratch moves every weight, and quantized weights can't be trained",
        "set model.quantization to none",
    ),
    Clash(
        "model.quantization",
        lambda c: c.quantized and c.moves_backbone,
        "the rules train weights of the backbone, and quantized weights can't be trained",
        "use strategy kind: peft (an adapter over the quantized base), or set model.quantization to none",
    ),
    Clash(
        "model.quantization",
        lambda c: c.quantized and c.facts.architecture.layers == 0,
        "only linear layers are quantized, and a convolutional network has none to speak of",
        "set model.quantization to none",
    ),
    Clash(
        "strategy",
        lambda c: c.pooled and c.recipe.model.task not in CLASSIFICATION,
        "a head over pooled features classifies, and this task has no classes",
        "use strategy kind: peft or full, or model.task: sequence-classification with labelled data",
    ),
    Clash(
        "strategy",
        lambda c: c.pooled and c.recipe.model.init == "scratch" and not c.moves_backbone,
        "features of a network that was never trained are random",
        "use strategy kind: full, or model.init: pretrained",
    ),
    Clash(
        "model.init",
        lambda c: c.recipe.model.init == "scratch" and c.stage is not None and c.stage.adapter is not None,
        "an adapter changes little of a base, and this base would be random and stay frozen",
        "use strategy kind: full, or model.init: pretrained",
    ),
    Clash(
        "train.gradient_checkpointing",
        lambda c: (
            c.stage is not None
            and c.stage.gradient_checkpointing
            and c.stage.adapter is None
            and c.pooled
            and not c.moves_backbone
        ),
        "the backbone's features are computed once, so there is no backward pass to recompute for",
        "set train.gradient_checkpointing to false",
    ),
    Clash(
        "train.gradient_checkpointing",
        lambda c: (
            c.stage is not None
            and c.stage.gradient_checkpointing
            and c.stage.adapter is not None
            and c.stage.adapter.peft_type == "PREFIX_TUNING"
        ),
        "prefix tuning hands its keys and values over in the cache, which recomputation switches off",
        "set train.gradient_checkpointing to false, or use method: prompt_tuning or lora",
    ),
    Clash(
        "data.packing",
        lambda c: c.recipe.data.packing and c.recipe.model.task != "causal-lm",
        "only next-token prediction can learn from several texts in one row",
        "set data.packing to false; train.group_by_length saves padding for every text task",
    ),
    Clash(
        "data.packing",
        lambda c: (
            c.recipe.data.packing
            and c.stage is not None
            and c.stage.adapter is not None
            and c.stage.adapter.peft_type in VIRTUAL_TOKENS
        ),
        "the method puts its own tokens before a row, where only the first packed text would see them",
        "set data.packing to false, or use method: lora",
    ),
    Clash(
        "model.dtype",
        lambda c: c.recipe.model.dtype == "float16" and c.world.device == "cpu" and c.stage is not None,
        "torch doesn't train in float16 on a CPU",
        "set model.dtype to float32 (or bfloat16)",
    ),
    Clash(
        "model.task",
        lambda c: c.recipe.model.task in CLASSIFICATION and len(c.facts.labels) == 1,
        "all rows have the same label, so there is nothing to tell apart",
        "check the label column, or list all classes in data.labels",
    ),
    Clash(
        "model.task",
        lambda c: c.recipe.model.task in WITHOUT_TEXT and c.facts.architecture.vocab_size > 0,
        "the model reads text, neither images nor sound",
        "set model.task to sequence-classification, or give a model of the task's kind",
    ),
    Clash(
        "model.task",
        lambda c: c.recipe.model.task not in WITHOUT_TEXT and c.facts.architecture.vocab_size == 0,
        "the model has no vocabulary, so it reads no text",
        "set model.task to image-classification or audio-classification, or give a text model",
    ),
    Clash(
        "model.task",
        lambda c: (
            c.recipe.model.task in WITHOUT_TEXT
            and c.facts.architecture.vocab_size == 0
            and (c.recipe.model.task == "audio-classification")
            != (c.facts.architecture.model_type in SPECTROGRAM_MODELS)
        ),
        "sound is read by spectrogram models, and they read nothing else",
        f"set model.task to audio-classification for {' and '.join(SPECTROGRAM_MODELS)}, and to "
        "image-classification for others",
    ),
    Clash(
        "data.train",
        lambda c: c.recipe.data.train is None and c.stage is not None and c.stage.source is None,
        "the strategy trains, and there are no rows to train on",
        "give data.train, or use strategy kind: none to score the base as it is",
    ),
    Clash(
        "data",
        lambda c: c.stage is None and not c.scores,
        "nothing is trained and there are no rows to score",
        "give data.test, or evaluate.tasks",
    ),
    Clash(
        "data.max_length",
        lambda c: (
            c.recipe.data.max_length is not None
            and 0 < c.facts.architecture.max_length < c.recipe.data.max_length
            and c.facts.architecture.vocab_size > 0
        ),
        "it is longer than the model's own limit",
        "set it to {limit} or less",
    ),
)


def check(recipe: Recipe, facts: Facts, stages: tuple[Stage, ...], world: World) -> tuple[str, ...]:
    """Notes about what works but may surprise.

    Raises:
        PlanError: parts of the recipe don't go together; names all that don't, and what does.
    """
    cases = _cases(recipe, facts, stages, world)
    found = clashes(recipe, facts, stages, world)
    for case in cases:
        if case.stage is not None:
            found += objective_problems(recipe, facts, case.stage, case.trained, world)
    found += _wrong_metrics(cases[0]) + _missing_trackers(recipe) + image_checks.refusals(recipe, facts)
    if found:
        raise PlanError("\n".join(dict.fromkeys(found)))
    return (*_notes(cases), *carrying.notes(stages))


def clashes(recipe: Recipe, facts: Facts, stages: tuple[Stage, ...], world: World) -> list[str]:
    """What doesn't go together, with the nearest thing that works."""
    cases = _cases(recipe, facts, stages, world)
    return [
        f"{clash.key}: {clash.reason}; {clash.instead.format(limit=facts.architecture.max_length)}"
        for clash in (
            *CLASHES,
            *image_checks.CLASHES,
            *masking_checks.CLASHES,
            *sharding_checks.CLASHES,
            *stream_checks.CLASHES,
            *task_checks.CLASHES,
            *regular_checks.CLASHES,
        )
        if any(clash.when(case) for case in cases)
    ]


def _cases(recipe: Recipe, facts: Facts, stages: tuple[Stage, ...], world: World) -> list[Case]:
    return [
        Case(recipe, facts, world, stage, trainable_names(facts.tensors, stage.rules)) for stage in stages
    ] or [Case(recipe, facts, world, None, frozenset())]


def _wrong_metrics(case: Case) -> list[str]:
    task = case.recipe.model.task
    return [
        f"evaluate.{role}: {metric} doesn't apply to {task}; allowed: {', '.join(METRICS[task])}"
        for role, metric in case.metrics
        if metric not in METRICS[task]
    ]


def _missing_trackers(recipe: Recipe) -> list[str]:
    return [
        f"train.report_to: {name} is not installed; pip install {name}, or leave it out"
        for name in recipe.train.report_to
        if util.find_spec(TRACKERS[name]) is None
    ]


def _heavy_dropout(case: Case) -> list[str]:
    """Dropout in the model's config so high that little gets through.

    Some published configs hold the probability of keeping where transformers reads that of dropping.
    """
    file = Path(case.facts.folder) / "config.json"
    if case.stage is None or case.pooled or not file.is_file():
        return []
    fields = {**json.loads(file.read_text(encoding="utf-8")), **case.recipe.model.config}
    return [
        f"{name} is {value} in the model's config: training would drop almost everything there; if it was "
        f"meant as the share that is kept, set model.config.{name}={1 - value:.3g}"
        for name, value in fields.items()
        if "drop" in name and isinstance(value, float) and value >= HEAVY_DROPOUT
    ]


def _notes(cases: list[Case]) -> tuple[str, ...]:
    recipe, facts, world = cases[0].recipe, cases[0].facts, cases[0].world
    notes = _heavy_dropout(cases[0]) + masking_checks.heads(recipe.model.task, facts)
    notes += image_checks.notes(recipe, facts)
    if facts.origin == "config":
        notes.append("sizes are computed from config.json; there are no weights here to train from")
    if facts.commit is not None and recipe.model.revision != facts.commit:
        notes.append(f"model.revision is not a commit; this plan is for {facts.commit}")
    if recipe.model.trust_remote_code:
        notes.append("model.trust_remote_code: Python code from the model's repository will run")
    if world.dtype == "bfloat16" and world.device == "cpu":
        notes.append("bfloat16 is emulated on many CPUs and then slower than float32")
    if recipe.model.quantization != "none" and world.device == "cpu":
        notes.append("quantized layers run on the CPU, but slowly; the saving is memory, not time")
    if recipe.data.test is None and recipe.data.train is not None and recipe.data.test_split:
        notes.append(
            f"data.test is not given: {recipe.data.test_split:.0%} of the training rows are held out for it"
        )
    if recipe.data.train is not None and recipe.data.train.streaming:
        notes.append(
            "data.train is read while training goes on: how many rows and epochs there are shows only "
            f"then, and rows are shuffled {recipe.data.train.rows_at_once:,} at a time"
        )
    if any(case.pooled and not case.moves_backbone for case in cases[:-1]):
        notes.append(
            "a stage after a pooled head starts from the backbone; only its head was trained before"
        )
    return tuple(notes)
