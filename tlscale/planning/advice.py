"""From what was seen of a task to a strategy worth trying, with reasons. Pure rules, free of torch.

The evidence is measured on the training rows alone. A trained head is checked on rows that it was not
fitted to; what needs no training is checked on all of them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from tlscale.recipe.base import Frozen
from tlscale.recipe.types import WITHOUT_TEXT

Word = Literal["transfer", "zero-shot suffices", "do not transfer", "too little to tell"]
LITTLE_HEADROOM = 0.1
FEW_ROWS = 16
ENOUGH_FOR_ADAPTERS = 20
LONG_ENOUGH_STEPS = 600
SMALL_MODEL = 50_000_000
SURE = 0.05


class Estimate(Frozen):
    """A share of right answers with its 95 % interval (Wilson's)."""

    value: float
    low: float
    high: float


class Evidence(Frozen):
    """What was seen of a task. `None`: it could not be measured.

    `linear` is a linear head on frozen features, leave-one-out; `class_mean` and `tfidf` are by
    cross-validation; `shuffled` is the linear head on shuffled labels: what chance gives. `base_nll` is in
    nats per token on training rows (of a masked language model: per hidden token), `retention_nll` on
    retention rows; `new_head` where the base has no head for the task yet.
    """

    task: str
    rows: int
    examined: int
    parameters: int
    classes: int = 0
    fewest: int = 0
    median: int = 0
    majority: float | None = None
    zero_shot: Estimate | None = None
    class_mean: Estimate | None = None
    linear: Estimate | None = None
    tfidf: Estimate | None = None
    shuffled: Estimate | None = None
    told_apart: float | None = None
    told_apart_p: float | None = None
    base_nll: float | None = None
    retention_nll: float | None = None
    new_head: bool = False


class Proposal(Frozen):
    """A strategy with settings that suit the amount of data, and why."""

    name: str
    strategy: dict[str, JsonValue]
    train: dict[str, JsonValue]
    why: str


class Advice(Frozen):
    """What to do, best first. `race` has what a race on validation rows found, by proposal."""

    version: Literal[1] = 1
    word: Word
    proposals: tuple[Proposal, ...]
    reasons: tuple[str, ...]
    evidence: Evidence
    metric: str | None = None
    race: dict[str, float | None] = Field(default_factory=dict)

    @property
    def chosen(self) -> Proposal:
        """The proposal that came first."""
        return self.proposals[0]


ZERO_SHOT = Proposal(name="zero_shot", strategy={"kind": "none"}, train={}, why="nothing is trained")


def advise(seen: Evidence) -> Advice:
    """The advice that `seen` supports."""
    if seen.classes:
        word, proposals, reasons = _classify(seen)
    else:
        word, proposals, reasons = _model_language(seen)
    return Advice(word=word, proposals=proposals, reasons=(*reasons, *_shift(seen)), evidence=seen)


def _classify(seen: Evidence) -> tuple[Word, tuple[Proposal, ...], list[str]]:
    zero, trained = seen.zero_shot, _best(seen)
    if trained is None:
        reason = (
            f"{seen.fewest} row{'s'[: seen.fewest != 1]} in the rarest of {seen.classes} classes: a "
            "trained head can't be checked on rows it wasn't fitted to."
        )
        if zero is not None and zero.low > (seen.majority or 0.0):
            more = f"Zero-shot by label names is right on {_share(zero)} of the labelled rows."
            return "zero-shot suffices", (ZERO_SHOT, _features(seen)), [reason, more]
        return "too little to tell", (_features(seen),), [reason]
    name, best = trained
    said = [f"A {name} on frozen features is right on {_share(best)} of rows it was not fitted to."]
    if seen.examined < seen.rows:
        said.append(f"That is from {seen.examined:,} of {seen.rows:,} rows; all of them will give more.")
    if seen.tfidf is not None:
        said.append(f"TF-IDF and logistic regression, without any pretraining: {_share(seen.tfidf)}.")
    chance = max(seen.majority or 0.0, seen.shuffled.high if seen.shuffled else 0.0)
    if best.low <= chance:
        said.append(
            f"That is no better than chance ({chance:.1%}): the features say nothing of these labels."
        )
        return "do not transfer", (_adapter(seen), ZERO_SHOT), said
    if zero is not None:
        said.append(f"Zero-shot by label names: {_share(zero)}.")
        if zero.value >= best.value:
            said.append("Training on so few rows would lose accuracy; more rows, or none.")
            return "zero-shot suffices", (ZERO_SHOT, _features(seen)), said
    if seen.tfidf is not None and seen.tfidf.low > best.high:
        said.append("Counting words does better than this base's features: another base, or none.")
        return "do not transfer", (_adapter(seen), _features(seen)), said
    return "transfer", _ranked(seen, best, said), said


def _ranked(seen: Evidence, best: Estimate, said: list[str]) -> tuple[Proposal, ...]:
    first, second = _features(seen), _adapter(seen)
    if seen.median < ENOUGH_FOR_ADAPTERS:
        said.append(f"{seen.median} rows a class are few for training more than a head.")
        return (first, second)
    if 1 - best.value > LITTLE_HEADROOM:
        said.append(f"There is room above {best.value:.1%}, and rows enough to move the backbone.")
        return (second, first)
    said.append("A head alone is close to the top, and costs little; an adapter may add some points.")
    return (first, second)


def _features(seen: Evidence) -> Proposal:
    few = seen.median <= FEW_ROWS
    train: dict[str, JsonValue] = {
        "learning_rate": 1e-3 if few else 3e-3,
        "num_train_epochs": 100.0 if few else 20.0,
        "train_batch_size": 64,
        "weight_decay": 1.0,
    }
    return Proposal(
        name="features", strategy={"kind": "features"}, train=train, why="a linear head on frozen features"
    )


def _adapter(seen: Evidence) -> Proposal:
    epochs = min(20.0, max(2.0, float(round(LONG_ENOUGH_STEPS * 32 / max(1, seen.rows)))))
    if seen.task in WITHOUT_TEXT:
        return Proposal(
            name="partial",
            strategy={"kind": "partial", "last_layers": 2},
            train={"learning_rate": 1e-3, "num_train_epochs": epochs, "train_batch_size": 32},
            why="the topmost blocks trained",
        )
    return Proposal(
        name="lora",
        strategy=_lora("pooled"),
        train={
            "learning_rate": 1e-3, "num_train_epochs": epochs, "train_batch_size": 32,
            "group_by_length": True,
        },
        why="LoRA on every linear layer under a pooled head",
    )  # fmt: skip


def _lora(head: str | None) -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = {
        "kind": "peft", "method": "lora", "r": 16, "lora_alpha": 32, "target_modules": "all-linear",
    }  # fmt: skip
    return {**made, "head": head} if head else made


def _model_language(seen: Evidence) -> tuple[Word, tuple[Proposal, ...], list[str]]:
    small = seen.parameters < SMALL_MODEL
    full, lora = _of_language(seen, small)
    proposals = (full, lora) if small else (lora, full)
    if seen.new_head:
        why = "a new one is trained, and an adapter alone would train around a random one."
        return "transfer", (full, _topmost(full)), [f"The base has no head for hidden tokens: {why}"]
    if seen.base_nll is None:
        return "transfer", proposals, [f"{seen.parameters:,} parameters; the rows were not looked at."]
    token = "hidden token" if seen.task == "masked-lm" else "token"
    said = [f"The base has {seen.base_nll:.3f} nats per {token} on the training rows."]
    if seen.retention_nll is not None:
        said.append(f"On the retention rows, which it should know: {seen.retention_nll:.3f}.")
        if seen.base_nll <= seen.retention_nll + SURE:
            said.append("It knows the training rows as well as those already.")
            return "zero-shot suffices", (ZERO_SHOT, *proposals), said
        said.append("Training will cost some of that: sweep the learning rate and compare the fronts.")
    if small:
        said.append(f"{seen.parameters:,} parameters are few: all of them can be trained.")
    return "transfer", proposals, said


def _of_language(seen: Evidence, small: bool) -> tuple[Proposal, Proposal]:
    """Every parameter, and LoRA, at rates that suit the model; encoders are trained more gently."""
    rates = {"causal-lm": (4e-3, 1e-2)}.get(seen.task, (1e-4, 1e-3)) if small else (2e-5, 2e-4)
    usual: dict[str, JsonValue] = {"num_train_epochs": 3.0, "train_batch_size": 16}
    full = Proposal(
        name="full",
        strategy={"kind": "full"},
        train={"learning_rate": rates[0], **usual},
        why="every parameter trained",
    )
    lora = Proposal(
        name="lora",
        strategy=_lora(None),
        train={"learning_rate": rates[1], **usual},
        why="LoRA on every linear layer",
    )
    return full, lora


def _topmost(full: Proposal) -> Proposal:
    return Proposal(
        name="partial",
        strategy={"kind": "partial", "last_layers": 2},
        train=full.train,
        why="the new head and the topmost blocks trained",
    )


def _best(seen: Evidence) -> tuple[str, Estimate] | None:
    found = [("linear head", seen.linear), ("nearest class mean", seen.class_mean)]
    known = [(name, estimate) for name, estimate in found if estimate is not None]
    return max(known, key=lambda pair: pair[1].value) if known else None


def _shift(seen: Evidence) -> list[str]:
    if seen.told_apart is None or seen.told_apart_p is None:
        return []
    if seen.told_apart_p >= SURE:
        return []
    told = f"{seen.told_apart:.0%} right, chance 50 %, p {seen.told_apart_p:.2g}"
    return [f"Test rows can be told from training rows ({told}): expect less there than these figures."]


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"


def written(raw: dict[str, Any], proposal: Proposal) -> dict[str, Any]:
    """The written recipe with a proposal in place of its strategy; its own training settings win."""
    made = {key: value for key, value in raw.items() if key not in ("strategy", "stages")}
    made["strategy"] = dict(proposal.strategy)
    given = {key: value for key, value in (raw.get("train") or {}).items() if value is not None}
    made["train"] = {**proposal.train, **given}
    return made
