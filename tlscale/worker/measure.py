"""Chooses how an arm answers, and scores it on the target and retention suites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from tlscale.data.collate import collate
from tlscale.data.examples import Example, prepare
from tlscale.data.masking import verbalizer
from tlscale.engine.runtime import Runtime
from tlscale.errors import PlanError
from tlscale.evaluation import labelfree, predict
from tlscale.evaluation.metrics import DEFAULTS
from tlscale.evaluation.runner import Arm, Predict, Suite, evaluate
from tlscale.evaluation.types import Measurement, Outcome
from tlscale.models.load import load_base
from tlscale.models.routing import Routes, with_tasks
from tlscale.planning.tasks import LANGUAGE, SEPARATOR, task_sizes
from tlscale.planning.types import Head, Plan
from tlscale.recipe.types import CLASSIFICATION, WITHOUT_TEXT, Source
from tlscale.runs.layout import RunLayout
from tlscale.sources import Row
from tlscale.worker.baselines import counted_words, nearest_mean
from tlscale.worker.examples import Roles

WITHOUT_PROBABILITIES = ("accuracy", "f1_macro")


@dataclass(frozen=True)
class Judge:
    """Everything that scoring needs besides the model."""

    plan: Plan
    layout: RunLayout
    runtime: Runtime
    processor: Any
    examples: Roles

    @property
    def size(self) -> int:
        return self.plan.recipe.train.per_device_eval_batch_size

    def suites(self) -> tuple[Suite, ...]:
        """The target suite and, where the recipe has one, the retention suite."""
        asked = self.plan.recipe.evaluate
        defaults = DEFAULTS[self.plan.recipe.model.task]
        found = []
        for name, role, metrics in (
            ("target", asked.split, asked.target),
            ("retention", "retention", asked.retention),
        ):
            if self.examples.get(role):
                rows = self.examples[role]
                parts = self._by_task(rows) if name == "target" else {}
                found.append(Suite(name, rows, metrics or defaults, role, parts))
        return tuple(found)

    @property
    def tasks(self) -> tuple[tuple[str, int], ...]:
        """The tasks that rows belong to, and how many classes each has; none where there is one."""
        train = self.plan.recipe.data.train
        return task_sizes(self.plan.facts.labels) if train is not None and train.tasks is not None else ()

    def _by_task(self, rows: Sequence[Example]) -> dict[str, list[int]]:
        """The numbers of the rows of each task."""
        found: dict[str, list[int]] = {name: [] for name, _ in self.tasks}
        for at in range(len(rows)) if found else ():
            found[rows[at].reference.partition(SEPARATOR)[0]].append(at)
        return {name: items for name, items in found.items() if items}

    def collate(self, examples: Sequence[Example]) -> dict[str, Any]:
        return collate(
            examples,
            task=self.plan.recipe.model.task,
            pad_id=getattr(self.processor, "pad_token_id", None) or 0,
            device=self.runtime.device,
        )

    @torch.inference_mode()
    def score(self, arm: Arm) -> tuple[Measurement, ...]:
        """All suites by `arm`, under the plan's precision; rows without labels by a classifier alone."""
        made: list[Measurement] = []
        with self.runtime.accelerator.autocast():
            for suite in self.suites():
                made += self._evaluated(suite, arm)
            if arm.label_free is not None and self.examples.get(labelfree.SUITE):
                made += self._label_free(arm, arm.label_free)
        return tuple(made)

    @torch.inference_mode()
    def score_on(self, suites: Sequence[Suite], arm: Arm, layout: RunLayout) -> tuple[Measurement, ...]:
        """`suites` by `arm`, filed in `layout`: no part of what the result is judged by."""
        with self.runtime.accelerator.autocast():
            return tuple(m for suite in suites for m in self._evaluated(suite, arm, layout))

    def _label_free(self, arm: Arm, answer: Predict) -> list[Measurement]:
        """The rows without labels, and held-out training rows answered in the same way."""
        rows, held_out = self.examples[labelfree.SUITE], self.examples.get(labelfree.HELD_OUT)
        suite = Suite(labelfree.SUITE, rows, labelfree.MEASURES, labelfree.SUITE)
        made = list(self._evaluated(suite, replace(arm, predict=answer)))
        if held_out and self.plan.recipe.evaluate.split == "test":
            suite = Suite(labelfree.HELD_OUT, held_out, ("accuracy",), labelfree.HELD_OUT)
            made += self._evaluated(suite, replace(arm, predict=partial(_with_references, answer)))
        return made

    def _evaluated(
        self, suite: Suite, arm: Arm, layout: RunLayout | None = None
    ) -> tuple[Measurement, ...]:
        return evaluate(
            suite,
            arm,
            layout or self.layout,
            rank=self.runtime.rank,
            world=self.runtime.world,
            collect=self.runtime.collect,
        )


def _with_references(answer: Predict, mine: Sequence[tuple[int, Example]]) -> list[Outcome]:
    right = {item: example.reference for item, example in mine}
    return [one.model_copy(update={"reference": right[one.item]}) for one in answer(mine)]


def model_arm(judge: Judge, module: nn.Module, name: str, stage: str | None) -> Arm:
    """The arm that answers with the model itself."""
    module.eval()
    task, labels = judge.plan.recipe.model.task, judge.plan.facts.labels
    if task in LANGUAGE:
        return Arm(name, "likelihood", stage, partial(_language, judge, module))
    if task == "sentence-embedding":
        retrieve = partial(predict.paired_retrieval, module, collate=judge.collate, size=judge.size)
        return Arm(name, "retrieval", stage, retrieve)
    shared: dict[str, Any] = {"labels": labels, "collate": judge.collate, "size": judge.size}
    told = (
        shared
        if not isinstance(getattr(module, "routes", None), Routes)
        else {**shared, "collate": with_tasks(judge.collate, judge.tasks)}
    )
    chosen = partial(predict.class_probabilities, module, **told, tasks=judge.tasks)
    unlabelled = partial(predict.label_free, module, **shared)
    return Arm(name, "classifier", stage, chosen, label_free=unlabelled)


def control_arms(judge: Judge) -> tuple[Arm, ...]:
    """The recipe's untrained controls; those that are trained are runs of their own."""
    asked, task = judge.plan.recipe.evaluate.against, judge.plan.recipe.model.task
    found = []
    if "majority" in asked and task in CLASSIFICATION:
        found.append(_majority(judge, "majority"))
    if "zero_shot" in asked and task == "sequence-classification":
        found.append(_zero_shot(judge, "zero_shot"))
    if "tfidf" in asked and task == "sequence-classification":
        found.append(counted_words(judge))
    if "class_mean" in asked and task in CLASSIFICATION:
        found.append(nearest_mean(judge))
    return tuple(found)


def base_arm(judge: Judge, module: nn.Module | None) -> Arm:
    """The base before any training.

    Where it has no head for the labels yet, text is classified
    zero-shot by the similarity of label names, and images by the commonest training class.
    """
    if module is not None:
        return model_arm(judge, module, "base", None)
    if judge.plan.recipe.model.task in WITHOUT_TEXT:
        return _majority(judge, "base")
    return _zero_shot(judge, "base")


def _majority(judge: Judge, name: str) -> Arm:
    labels = judge.plan.facts.labels
    known = judge.examples.get("train") or judge.examples["test"]
    commonest = Counter(example.label for example in known).most_common(1)[0][0]
    predictor = partial(predict.majority, label=labels[commonest or 0], labels=labels)
    return Arm(name, "majority class", None, predictor, WITHOUT_PROBABILITIES)


def _zero_shot(judge: Judge, name: str) -> Arm:
    plan = judge.plan
    model = plan.recipe.model.model_copy(update={"task": "sentence-embedding"})
    encoder = load_base(model, plan.facts, head=Head(kind="native"), world=plan.world, seed=plan.seed)
    encoder.to(judge.runtime.device).eval()
    predictor = partial(
        predict.nearest_label,
        encoder,
        names=label_examples(judge),
        collate=judge.collate,
        size=judge.size,
        labels=plan.facts.labels,
        tasks=judge.tasks,
    )
    return Arm(name, "zero-shot by label names", None, predictor, WITHOUT_PROBABILITIES)


def label_examples(judge: Judge) -> tuple[Example, ...]:
    """The class names as texts, by the recipe's template."""
    plan = judge.plan
    template = plan.recipe.evaluate.label_template
    rows = tuple(
        Row({"text": template.replace("{label}", _spoken(label, judge)), "label": label}, f"label {label}")
        for label in plan.facts.labels
    )
    source = Source(path="label-names", text="text", label="label")
    return prepare(
        rows,
        source,
        task="sequence-classification",
        processor=judge.processor,
        labels=plan.facts.labels,
        max_length=plan.max_length,
        overflow="cut",
        loss_on="all",
    ).examples


def _spoken(label: str, judge: Judge) -> str:
    """A class name as people write it, without the task that it belongs to."""
    return (label.partition(SEPARATOR)[2] if judge.tasks else label).replace("_", " ")


def _language(judge: Judge, module: nn.Module, mine: Sequence[tuple[int, Example]]) -> list[Outcome]:
    """Likelihoods, and answers where exact match or accuracy is asked for.

    Those are greedy continuations, or the best of the training rows' words in a mask.
    """
    outcomes = predict.token_likelihoods(
        module, mine, collate=judge.collate, size=judge.size,
        guesses=judge.plan.recipe.model.task == "masked-lm",
    )  # fmt: skip
    asked = {metric for suite in judge.suites() for metric in suite.metrics}
    if "accuracy" in asked:
        words = words_of(judge)
        answers = predict.words_in_masks(module, mine, words, collate=judge.collate, size=judge.size)
    elif "exact_match" in asked:
        answers = predict.generations(
            module,
            mine,
            tokenizer=judge.processor,
            device=judge.runtime.device,
            max_new_tokens=judge.plan.recipe.evaluate.max_new_tokens,
        )
    else:
        return outcomes
    answered = {o.item: {"prediction": o.prediction, "reference": o.reference} for o in answers}
    return [outcome.model_copy(update=answered[outcome.item]) for outcome in outcomes]


def words_of(judge: Judge) -> dict[int, str]:
    """The words that fill masks, by token: of all rows that there are, sorted.

    Raises:
        PlanError: rows have no pattern with a word.
    """
    asked = judge.plan.recipe.evaluate
    roles = ("train", asked.split, "retention")
    found: dict[int, str] = {}
    for example in (e for role in roles for e in judge.examples.get(role, ())):
        token = verbalizer(example)
        if token is None:
            raise PlanError(
                f"evaluate: accuracy is of words in a pattern's mask, and {example.where} has no pattern; "
                "ask for token_accuracy, or give prompt and completion"
            )
        found[token] = example.reference
    return dict(sorted(found.items()))
