"""The part of a report that says what the transfer did: the verdict and its grounds, and every score."""

from __future__ import annotations

from statistics import NormalDist

from tlscale.evaluation.types import HIGHER_IS_BETTER
from tlscale.report import figures
from tlscale.report.blocks import (
    Block,
    Bullets,
    Column,
    Figure,
    Opening,
    Pair,
    Pairs,
    Section,
    Table,
    Text,
    Tone,
)
from tlscale.report.read import RunFacts
from tlscale.report.types import SEEDS_FOR_A_VERDICT, SUITES, ArmScore, Claim, Verdict
from tlscale.report.words import (
    PLUS_MINUS,
    SHARES,
    Unit,
    arm,
    change,
    count,
    gate_sentence,
    metric_name,
    number,
    p_value,
    percent,
    plural,
    sentence,
    span,
    unit,
    value,
)

TONES: dict[str, Tone] = {"POSITIVE": "good", "NEGATIVE": "bad", "INCONCLUSIVE": "doubt"}


def opening(run: RunFacts, verdict: Verdict) -> Opening:
    """The word, one sentence, the interval drawn, and the figures behind it."""
    target, retention = verdict.claim("target"), verdict.claim("retention")
    caution = ""
    if verdict.smoke:
        n = plural(len(run.seeds), "seed")
        caution = (
            f"A smoke test: {n} of the {SEEDS_FOR_A_VERDICT} that a verdict needs. "
            "Another seed may say otherwise."
        )
    said = sentence(target, run.task) if target else "This run makes no claim about its target."
    second = None
    if retention is not None and retention.word != "NOT MEASURED":
        second = (retention.word, TONES.get(retention.word, "plain"), sentence(retention, run.task))
    return Opening(
        word=verdict.word,
        tone=TONES.get(verdict.word, "plain"),
        sentence=said,
        caution=caution,
        figure=_interval("verdict", target, run.task),
        pairs=Pairs(_pairs(target, run.task)),
        second=second,
    )


def _interval(name: str, claim: Claim | None, task: str) -> Figure | None:
    if claim is None or claim.metric is None or claim.effect is None or claim.low is None:
        return None
    of = unit(claim.metric, task)
    tone, text = TONES.get(claim.word, "plain"), change(claim.effect, of)
    mark = _scaled("improvement", (claim.effect, claim.low, claim.high), text, tone, of)
    title = f"{claim.name.capitalize()}: improvement of {metric_name(claim.metric)}"
    margin = change(claim.margin, of, signed=False)
    return Figure(
        figures.interval(name, title, mark, margin=claim.margin * of.factor),
        f"Improvement over {arm(claim.against or 'base')} in {of.change or metric_name(claim.metric)}; "
        f"the bar is its {percent(claim.level)} interval, the thin line is no difference, "
        f"the shade the declared margin of {PLUS_MINUS}{margin}.",
    )


def _scaled(
    name: str, values: tuple[float, float | None, float | None], text: str, style: str, of: Unit
) -> figures.Mark:
    """A row of a figure in the units that are printed."""
    middle, low, high = (None if v is None else v * of.factor for v in values)
    return figures.Mark(name, middle or 0.0, low, high, text, style)


def _pairs(claim: Claim | None, task: str) -> tuple[Pair, ...]:
    if claim is None or claim.metric is None or claim.effect is None:
        return ()
    of = unit(claim.metric, task)
    found = [Pair("improvement", change(claim.effect, of), metric_name(claim.metric))]
    if claim.low is not None and claim.high is not None:
        found.append(
            Pair(
                f"{percent(claim.level)} interval", span(claim.low, claim.high, of, signed=True), of.change
            )
        )
    if claim.smallest_detectable is not None:
        least = change(claim.smallest_detectable, of, signed=False)
        found.append(Pair("smallest detectable effect", least, f"at {percent(0.8)} power"))
    found.append(Pair("evidence", plural(claim.n_items, "item"), f"x {plural(claim.n_seeds, 'seed')}"))
    if claim.p_value is not None:
        found.append(Pair("p-value", p_value(claim.p_value), "two-sided"))
    return tuple(found)


def grounds(run: RunFacts, verdict: Verdict) -> Section:
    """Why the word is what it is: reasons, every control, method."""
    gate = () if verdict.gate is None else (gate_sentence(verdict.gate),)
    said = (*gate, *verdict.reasons)
    blocks: list[Block] = [Bullets(said)] if said else []
    for claim in verdict.claims:
        if len(claim.contrasts) > 1 and claim.metric is not None:
            blocks += _contrasts(claim, claim.metric, run.task)
    methods = dict.fromkeys(claim.method for claim in verdict.claims if claim.method)
    blocks += [Text(method, note=True) for method in methods]
    return Section("grounds", "Why this word", tuple(blocks))


def _contrasts(claim: Claim, metric: str, task: str) -> list[Block]:
    of = unit(metric, task)
    rows = []
    for c in claim.contrasts:
        effect, text, style = (c.effect, c.low, c.high), change(c.effect, of), _side(c.low, c.high)
        rows.append(_scaled(f"over {arm(c.against)}", effect, text, style, of))
    title = f"Improvement of {metric_name(metric)} over each control, {claim.name}"
    svg = figures.marks(f"contrasts-{claim.name}", title, rows, bounds=(0.0,), zero=True)
    table = Table(
        title,
        (
            Column("control"),
            Column(f"improvement ({of.change})" if of.change else "improvement", True),
            Column(f"{percent(claim.level)} interval", True),
            Column("p after Holm", True),
        ),
        tuple(
            (
                arm(c.against),
                number(c.effect * of.factor, of.digits, signed=True),
                span(c.low, c.high, of, signed=True),
                p_value(c.p_holm),
            )
            for c in claim.contrasts
        ),
    )
    return [Figure(svg, f"{title}; the short lines are no difference."), table]


def _side(low: float, high: float) -> str:
    return "good" if low > 0 else "bad" if high < 0 else "doubt"


def scores(run: RunFacts, verdict: Verdict, suite: str, level: float) -> tuple[Block, ...]:
    """Every arm on one suite: a drawing for each metric and one table."""
    mine = [score for score in verdict.arms if score.suite == suite]
    if not mine:
        return ()
    blocks: list[Block] = []
    for metric in dict.fromkeys(score.metric for score in mine):
        better = HIGHER_IS_BETTER.get(metric, True)
        ranked = sorted((s for s in mine if s.metric == metric), key=lambda s: s.value, reverse=better)
        direction = "higher is better" if better else "lower is better"
        name = metric_name(metric)
        title = f"{name[0].upper()}{name[1:]} on the {suite} rows, {direction}"
        bounds = (0.0, 100.0) if metric in SHARES else ()
        rows = [_mark(score, run.task, level) for score in ranked]
        blocks.append(
            Figure(figures.marks(f"{suite}-{metric}", title, rows, bounds=bounds), f"{title}; best first.")
        )
    columns = (
        Column("arm"),
        Column("metric"),
        Column("score", True),
        Column(f"{percent(level)} interval", True),
        Column("seeds", True),
        Column("how it answers"),
    )
    cells = [_row(score, run.task, level) for score in mine]
    if suite == "target":
        cells += [(arm(name), "", "did not run", "", "", "") for name in verdict.missing_arms]
    blocks.append(Table(f"Scores on the {suite} rows", columns, tuple(cells)))
    return tuple(blocks)


def _ends(score: ArmScore, level: float) -> tuple[float, float] | None:
    if score.stderr is None:
        return None
    reach = NormalDist().inv_cdf((1 + level) / 2) * score.stderr
    return score.value - reach, score.value + reach


def _mark(score: ArmScore, task: str, level: float) -> figures.Mark:
    of = unit(score.metric, task)
    low, high = _ends(score, level) or (None, None)
    style = "tuned" if score.arm == "tuned" else "other"
    return _scaled(arm(score.arm), (score.value, low, high), value(score.value, of), style, of)


def _row(score: ArmScore, task: str, level: float) -> tuple[str, ...]:
    of, ends = unit(score.metric, task), _ends(score, level)
    return (
        arm(score.arm),
        metric_name(score.metric),
        value(score.value, of),
        span(*ends, of) if ends else "none",
        count(score.n_seeds),
        score.predictor,
    )


def retention(run: RunFacts, verdict: Verdict, level: float) -> Section | None:
    """What the base could do before, and whether it still can."""
    claim = verdict.claim("retention")
    blocks = scores(run, verdict, "retention", level)
    if claim is None and not blocks:
        return None
    said: list[Block] = [Text(sentence(claim, run.task))] if claim else []
    drawn = _interval("kept", claim, run.task)
    return Section("retention", "What was kept", (*said, *([drawn] if drawn else []), *blocks))


def tasks(run: RunFacts, verdict: Verdict, level: float) -> Section | None:
    """Evaluation tasks: what became of each, and all their scores."""
    names = dict.fromkeys(score.suite for score in verdict.arms if score.suite not in SUITES)
    if not names:
        return None
    said = tuple(sentence(claim, run.task) for claim in verdict.claims if claim.name in names)
    columns = ("task", "arm", "metric", "score", f"{percent(level)} interval", "how it answers")
    cells = []
    for name in names:
        for score in (score for score in verdict.arms if score.suite == name):
            one, metric, amount, ends, _, how = _row(score, run.task, level)
            cells.append((name, one, metric, amount, ends, how))
    right = ("score", columns[4])
    table = Table("Evaluation tasks", tuple(Column(c, c in right) for c in columns), tuple(cells))
    return Section("tasks", "Evaluation tasks", (*([Bullets(said)] if said else []), table))
