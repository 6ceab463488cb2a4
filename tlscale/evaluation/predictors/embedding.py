"""Sentence embeddings: zero-shot by the similarity of label names, and two few-shot baselines.

`class-mean` is the nearest mean of a class's training rows (Snell et al. 2017, arXiv:1703.05175), `knn` the
vote of the nearest training rows (Cover and Hart 1967). Shots are training rows of each class for them, 0
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tlscale.errors import UsageError
from tlscale.evaluation.predictors.classes import Batch, ClassPredictor, label_texts
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.requests import ChoiceScores
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.evaluation.tasks.run import Answers
from tlscale.models.heads import Encoder
from tlscale.models.load import load_base, load_processor
from tlscale.planning.types import Head

# Cosines become log-probabilities at this sharpness; it changes no choice.
SHARPNESS = 20.0
NEIGHBOURS = 10


@dataclass(frozen=True)
class Embedder:
    """Texts -> vectors of length 1, [rows, features]."""

    module: nn.Module
    tokenizer: Any
    device: torch.device
    size: int
    max_length: int

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        found = []
        for start in range(0, len(texts), self.size):
            batch = self.tokenizer(
                list(texts[start : start + self.size]),
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.device)
            found.append(functional.normalize(self.module(**batch).embeddings.float(), dim=-1))
        return torch.cat(found)


def embedder(setup: Setup) -> Embedder:
    """The run's own encoder, or the base with its pooled states."""
    module = setup.module
    model = setup.model.model_copy(update={"task": "sentence-embedding"})
    if not isinstance(module, Encoder):
        module = load_base(model, setup.facts, head=Head(kind="native"), world=setup.world, seed=setup.seed)
        module.to(setup.device)
    module.eval()
    tokenizer = setup.processor or load_processor(model, setup.facts)
    longest = min(setup.max_length, getattr(tokenizer, "model_max_length", setup.max_length))
    return Embedder(module, tokenizer, setup.device, setup.size, longest)


@dataclass(frozen=True)
class EmbeddingPredictor:
    """The nearest label, the nearest choice, or the nearest of all answers."""

    embed: Embedder
    name: str = "sentence embeddings"
    learns: bool = False
    shares: bool = False
    kinds: frozenset[str] = frozenset({"classification", "choice", "embedding"})

    def overflow(self, prepared: Prepared, numbers: Sequence[int]) -> tuple[int, ...]:
        """No prompt, so none that is too long."""
        return (0,) * len(numbers)

    @torch.inference_mode()
    def answer(self, prepared: Prepared, numbers: Sequence[int]) -> Answers:
        """Labels and answers are embedded once for all items."""
        if not numbers:
            return
        if prepared.kind == "classification":
            by_class = ClassPredictor(self.name, self._labels, self.embed.size)
            yield from by_class.answer(prepared, numbers)
            return
        queries = self.embed([prepared.items[at].document.text for at in numbers])
        if prepared.kind == "embedding":
            yield from self._retrieved(prepared, numbers, queries)
            return
        for query, at in zip(queries, numbers, strict=True):
            choices = self.embed(prepared.items[at].document.choices)
            row = (choices @ query * SHARPNESS).log_softmax(dim=-1).double().tolist()
            yield at, (ChoiceScores(tuple(row), (1,) * len(row)),)

    def _labels(self, prepared: Prepared) -> Any:
        assert prepared.task is not None
        labels = self.embed(label_texts(prepared, prepared.task.template))

        def of(batch: Batch) -> torch.Tensor:
            vectors = self.embed([document.text for document in batch])
            return (vectors @ labels.T * SHARPNESS).log_softmax(dim=-1)

        return of

    def _retrieved(self, prepared: Prepared, numbers: Sequence[int], queries: torch.Tensor) -> Answers:
        """Two scores an item: of its own answer, and of the best of the others'."""
        answers = self.embed([str(item.document.answer) for item in prepared.items])
        for query, at in zip(queries, numbers, strict=True):
            near = answers @ query
            own = float(near[at])
            near[at] = -torch.inf
            yield at, (ChoiceScores((own, float(near.max())), (1, 1)),)


def embedding(setup: Setup) -> EmbeddingPredictor:
    """The plugin `embedding`."""
    return EmbeddingPredictor(embedder(setup))


@dataclass(frozen=True)
class _Learned:
    """Training rows as vectors [rows, features] with their classes [rows]."""

    vectors: torch.Tensor
    classes: torch.Tensor


def _learned(embed: Embedder, prepared: Prepared) -> _Learned:
    if not prepared.train:
        raise UsageError(f"{prepared.name}: it has no training rows to learn from")
    labels = torch.tensor([int(document.answer or 0) for document in prepared.train])
    return _Learned(embed([document.text for document in prepared.train]), labels)


def class_mean(setup: Setup) -> ClassPredictor:
    """The plugin `class-mean`."""
    embed = embedder(setup)

    def scores(prepared: Prepared) -> Any:
        known = _learned(embed, prepared)
        means = torch.stack(
            [
                functional.normalize(known.vectors[known.classes == at].sum(dim=0), dim=-1)
                for at in range(len(prepared.labels))
            ]
        )
        return lambda batch: (embed([d.text for d in batch]) @ means.T * SHARPNESS).log_softmax(dim=-1)

    return ClassPredictor("nearest class mean", scores, setup.size, learns=True)


def knn(setup: Setup) -> ClassPredictor:
    """The plugin `knn`; the option `neighbours` says how many rows vote, weighted by similarity."""
    embed = embedder(setup)
    asked = setup.options.get("neighbours", NEIGHBOURS)
    if not isinstance(asked, int) or asked < 1:
        raise UsageError(f"evaluate.predictor_options.neighbours: {asked!r} is not a whole number above 0")

    def scores(prepared: Prepared) -> Any:
        known = _learned(embed, prepared)
        voting = min(asked, len(known.classes))

        def of(batch: Batch) -> torch.Tensor:
            near, rows = (embed([d.text for d in batch]) @ known.vectors.T).topk(voting, dim=-1)
            votes = torch.zeros(len(batch), len(prepared.labels), device=near.device)
            votes.scatter_add_(1, known.classes.to(rows.device)[rows], (near * SHARPNESS).exp())
            return (votes + torch.finfo(votes.dtype).tiny).log().log_softmax(dim=-1)

        return of

    return ClassPredictor("nearest neighbours", scores, setup.size, learns=True)
