"""How numbers and claims are said: units, signs, intervals, and one plain sentence for each word."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tlscale.report.types import Claim, Gate

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
SHARES = (
    "accuracy", "exact_match", "f1_macro", "acc", "acc_norm", "acc_norm_tokens", "acc_pmi",
    "acc_contextual", "acc_batch", "mc2", "acc_in_scope", "oos_recall", "pct_stereotype",
    "token_accuracy",
)  # fmt: skip
ARMS = {
    "base": "the base",
    "majority": "the commonest class",
    "zero_shot": "zero-shot",
    "features": "frozen features",
    "scratch": "training from scratch",
    "target_only": "the last stage alone",
    "source_only": "training without adapting",
    "tuned": "the tuned model",
}
METRICS = {
    "acc": "accuracy",
    "acc_norm": "accuracy by character",
    "acc_norm_tokens": "accuracy by token",
    "word_perplexity": "perplexity per word",
    "byte_perplexity": "perplexity per byte",
    "bits_per_byte": "bits per byte",
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "f1_macro": "macro F1",
    "nll": "negative log-likelihood",
    "perplexity": "perplexity",
    "token_accuracy": "accuracy of hidden tokens",
}


@dataclass(frozen=True)
class Unit:
    """How one metric is printed: multiplied by `factor`, with `digits`, in `value` or `change` units."""

    factor: float
    digits: int
    value: str
    change: str


def unit(metric: str, task: str) -> Unit:
    """The unit of a metric; likelihoods are per token of language, and per item elsewhere."""
    if metric in SHARES:
        return Unit(100.0, 1, "%", "points")
    each = {"causal-lm": "token", "masked-lm": "hidden token"}.get(task, "item")
    if metric == "nll":
        return Unit(1.0, 3, f"nats per {each}", f"nats per {each}")
    if metric == "perplexity":
        return Unit(1.0, 2, f"per {each}", f"per {each}")
    return Unit(1.0, 4, "", "")


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with grouped thousands and a real minus sign; large ones lose decimals that say nothing."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{MINUS if value < 0 else ''}infinity"
    if abs(value) >= 1e6:
        text = f"{value:+.3g}" if signed else f"{value:.3g}"
    else:
        kept = digits if abs(value) < 1000 else min(digits, 1)
        text = f"{value:+,.{kept}f}" if signed else f"{value:,.{kept}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def value(amount: float, of: Unit) -> str:
    """A score with its unit: `92.0 %`, `2.755 nats per token`."""
    return joined(number(amount * of.factor, of.digits), of.value)


def change(amount: float, of: Unit, *, signed: bool = True) -> str:
    """A difference of scores with its unit: `+29.8 points`."""
    return joined(number(amount * of.factor, of.digits, signed=signed), of.change)


def span(low: float, high: float, of: Unit, *, signed: bool = False) -> str:
    """An interval without its unit: `28.1 to 31.5`."""
    ends = (number(end * of.factor, of.digits, signed=signed) for end in (low, high))
    return f" to{SPACE}".join(ends)


def joined(text: str, ending: str) -> str:
    """Number and unit, which a line break must not part."""
    return f"{text}{SPACE}{ending}" if ending else text


def p_value(p: float) -> str:
    """A p-value to three decimals."""
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent."""
    return joined(f"{share * 100:.{digits}f}", "%")


def count(amount: float) -> str:
    """A whole number in full: 22,742,861."""
    return f"{amount:,.0f}"


def plural(amount: int, noun: str) -> str:
    """A count with its noun."""
    ending = "" if amount == 1 else "es" if noun.endswith("s") else "s"
    return f"{amount:,} {noun}{ending}"


def seconds(amount: float) -> str:
    """A duration: `15.7 s`, `4 min 12 s`, `3 h 10 min`."""
    if amount < 60:
        return joined(f"{amount:.1f}", "s")
    whole = round(amount)
    if whole < 3600:
        return f"{whole // 60}{SPACE}min {whole % 60}{SPACE}s"
    return f"{whole // 3600:,}{SPACE}h {whole % 3600 // 60}{SPACE}min"


def size(amount: float) -> str:
    """Bytes in decimal units: `1.4 kB`, `604.0 MB`, `5.6 GB`."""
    for limit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= limit:
            return joined(f"{amount / limit:,.1f}", name)
    return joined(f"{amount:.0f}", "bytes")


def arm(name: str) -> str:
    """An arm in words; other runs keep their own name."""
    return ARMS.get(name, name)


def metric_name(metric: str) -> str:
    """A metric in words."""
    return METRICS.get(metric, metric)


def sentence(claim: Claim, task: str) -> str:
    """What one claim says, for someone who reads nothing else."""
    if claim.effect is None or claim.low is None or claim.high is None or claim.metric is None:
        return NOT_MEASURED.get(claim.name, f"On {claim.name} base and result could not be compared.")
    of = unit(claim.metric, task)
    rivals = len(claim.contrasts)
    best = f", the best of the {rivals} arms that ran," if rivals > 1 else ""
    given = {
        "name": metric_name(claim.metric),
        "against": arm(claim.against or "base") + best,
        "size": change(abs(claim.effect), of, signed=False),
        "span": f"{percent(claim.level)} interval {span(claim.low, claim.high, of, signed=True)}",
        "margin": change(claim.margin, of, signed=False),
    }
    said = SENTENCES.get((claim.name, claim.word)) or SENTENCES["task", claim.word]
    return said.format(**given, task=claim.name)


def gate_sentence(found: Gate) -> str:
    """Whether an adaptation is to be kept, and by what estimate."""
    return (
        f"label-free gate: {found.decision}; calibrated information {found.effect:+.4f} nats "
        f"[{found.low:+.4f}, {found.high:+.4f}], {found.adapted:.4f} and {found.plain:.4f} of "
        f"{found.against}, on {found.n_unlabelled:,} rows without labels; calibrated on "
        f"{found.n_labelled:,} held out"
    )


NOT_MEASURED = {
    "target": "Nothing was measured that the tuned model could be compared with.",
    "retention": "What the base could do before was not measured; data.retention is for that.",
}
SENTENCES = {
    ("target", "POSITIVE"): ("The tuned model beats {against} by {size} of {name} ({span})."),
    ("target", "NEGATIVE"): ("The tuned model is worse than {against} by {size} of {name} ({span})."),
    ("target", "EQUIVALENT"): (
        "The tuned model and {against} score the same {name} within the declared "
        f"margin of {PLUS_MINUS}{{margin}} ({{span}})."
    ),
    ("target", "INCONCLUSIVE"): (
        "This evaluation can't tell the tuned model and {against} "
        "apart: the difference in {name} is {size} ({span})."
    ),
    ("task", "POSITIVE"): "On {task} the tuned model is better by {size} of {name} ({span}).",
    ("task", "NEGATIVE"): "On {task} the tuned model is worse by {size} of {name} ({span}).",
    ("task", "EQUIVALENT"): (
        "On {task} both score the same {name} within the declared margin of "
        f"{PLUS_MINUS}{{margin}} ({{span}})."
    ),
    ("task", "INCONCLUSIVE"): (
        "On {task} the two can't be told apart: the difference in {name} is {size} ({span})."
    ),
    ("retention", "POSITIVE"): (
        "On what the base could do before, the tuned model is even better, by {size} of {name} ({span})."
    ),
    ("retention", "NEGATIVE"): (
        "What the base could do before got worse by {size} of {name} ({span}): a real loss."
    ),
    ("retention", "EQUIVALENT"): (
        f"What the base could do before is kept within the declared margin of {PLUS_MINUS}{{margin}} "
        "of {name} ({span})."
    ),
    ("retention", "INCONCLUSIVE"): (
        "Whether the base forgot anything can't be told from this evaluation: "
        "{name} differs by {size} ({span})."
    ),
}
