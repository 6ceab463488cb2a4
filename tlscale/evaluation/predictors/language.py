"""A causal language model: likelihoods of answers, continuations, perplexity."""

from __future__ import annotations

from collections.abc import Sequence

from tlscale.errors import UsageError
from tlscale.evaluation.predictors.setup import Setup
from tlscale.evaluation.requests import Request, Result, Scorer
from tlscale.evaluation.scoring.scorer import ModelScorer, Share
from tlscale.evaluation.tasks.prepare import Prepared
from tlscale.evaluation.tasks.run import Answers
from tlscale.models.load import load_base, load_processor

KINDS = frozenset({"choice", "likelihood", "generation", "classification", "rolling"})


class LanguagePredictor:
    """Asks a `Scorer` every item's requests; `shares` says whether that divides the work itself."""

    kinds = KINDS
    learns = False

    def __init__(self, scorer: Scorer, name: str = "language model", *, shares: bool = False) -> None:
        self.name, self.shares = name, shares
        self.scorer = scorer

    def overflow(self, prepared: Prepared, numbers: Sequence[int]) -> tuple[int, ...]:
        """The largest loss of an item's requests, in tokens."""
        flat, owners = _flat(prepared, numbers)
        lost = dict.fromkeys(numbers, 0)
        for owner, count in zip(owners, self.scorer.overflow(flat), strict=True):
            lost[owner] = max(lost[owner], count)
        return tuple(lost[number] for number in numbers)

    def answer(self, prepared: Prepared, numbers: Sequence[int]) -> Answers:
        """An item's results as soon as the last of them is there."""
        flat, owners = _flat(prepared, numbers)
        first = {owner: at for at, owner in reversed(list(enumerate(owners)))}
        pending: dict[int, dict[int, Result]] = {number: {} for number in numbers}
        for at, result in self.scorer.score(flat):
            owner = owners[at]
            pending[owner][at - first[owner]] = result
            if len(pending[owner]) == len(prepared.items[owner].requests):
                found = pending.pop(owner)
                yield owner, tuple(found[place] for place in sorted(found))


def _flat(prepared: Prepared, numbers: Sequence[int]) -> tuple[list[Request], list[int]]:
    """All requests of the items, and which item each belongs to."""
    pairs = [(request, number) for number in numbers for request in prepared.items[number].requests]
    return [request for request, _ in pairs], [number for _, number in pairs]


def language(setup: Setup) -> LanguagePredictor:
    """The plugin `lm`."""
    module = setup.module
    if module is None:
        model = setup.model.model_copy(update={"task": "causal-lm"})
        module = load_base(model, setup.facts, head=None, world=setup.world, seed=setup.seed, scoring=True)
        module.to(setup.device)
    tokenizer = setup.processor or load_processor(setup.model, setup.facts)
    budget = setup.options.get("budget")
    if not (budget is None or (type(budget) is int and budget > 0)):
        raise UsageError(f"evaluate.predictor_options.budget: {budget!r} is not a number of tokens above 0")
    scorer = ModelScorer(
        module,
        tokenizer,
        length=setup.max_length,
        budget=budget,
        share=Share(setup.rank, setup.processes, setup.collect),
        journal=setup.journal,
        note=setup.say,
        progress=setup.progress,
    )
    return LanguagePredictor(scorer, shares=True)
