"""The model card, written from the run: nothing is typed by hand, and what is unknown is said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlscale.planning.types import Plan, PlannedStage
from tlscale.publish import usage
from tlscale.publish.content import Base
from tlscale.publish.evidence import DataPart, Gaps
from tlscale.publish.licences import Chain
from tlscale.publish.markdown import bullets, code, count, number, plain, table
from tlscale.recipe.types import WITHOUT_TEXT

# Watts that one device draws in training, for the estimate of energy alone.
WATTS = {"cpu": 65, "cuda": 400}


@dataclass(frozen=True)
class Told:
    """Everything that a card is written from; `plan` is the public one."""

    repository: str
    plan: Plan
    kind: str
    merged: bool
    base: Base | None
    chain: Chain
    data: tuple[DataPart, ...]
    scores: tuple[Mapping[str, Any], ...]
    verdict: Mapping[str, Any] | None
    despite: str | None
    contamination: tuple[str, ...]
    shift: str
    gaps: Gaps | None
    verified: Mapping[str, Any] | None
    versions: Mapping[str, str]


def body(told: Told) -> str:
    """The card below its metadata."""
    name = told.repository.partition("/")[2]
    parts = [
        f"# {plain(name)}",
        _opening(told),
        "## How to load it",
        usage.loading(told.repository, told.plan, told.kind, told.base),
        "## What was measured",
        _measured(told),
        "## What was trained",
        _trained(told),
        "## Data",
        _data(told),
        "## Licence",
        _licence(told),
        "## Cost",
        _cost(told),
        "## Limits",
        bullets(_limits(told)),
        "## Reproduce it",
        usage.again(told.repository, told.plan, told.data, told.versions),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(told: Told) -> str:
    what = {
        "adapter": "An adapter",
        "adapters": "Adapters, one for each task,",
        "head": "A head",
        "checkpoint": "A fine-tuned checkpoint",
    }[told.kind]
    if told.merged:
        what = "An adapter, merged into its base,"
    on = plain(told.plan.facts.model) if told.base is None else code(told.base.name)
    at = "" if told.base is None else f" at commit {code(told.base.commit)}"
    lines = [
        f"{what} of {on}{at}, for {plain(told.plan.recipe.model.task)}. Trained and verified by tlscale."
    ]
    if told.verdict is not None:
        smoke = " (a smoke test: too few seeds for a verdict that would hold for another)" * bool(
            told.verdict.get("smoke")
        )
        lines.append(f"Verdict: **{plain(told.verdict['word'])}**{smoke}.")
    if told.despite is not None:
        lines.append(f"Published despite its verdict, for this reason: {plain(told.despite)}")
    return "\n\n".join(lines)


def _measured(told: Told) -> str:
    scores: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in told.scores:
        scores.setdefault((row["suite"], row["metric"]), {})[row["arm"]] = row
    rows = []
    for (suite, metric), arms in scores.items():
        base, tuned = arms.get("base"), arms.get("tuned")
        any_arm = tuned or base or next(iter(arms.values()))
        cells = (plain(suite), plain(metric), _score(base), _score(tuned), count(any_arm["n"]))
        rows.append(cells)
    blocks = [
        "Base and result on the same items; intervals are 95 %, over items.",
        table(("suite", "metric", "before", "after", "items"), rows),
    ]
    for claim in (told.verdict or {}).get("claims", ()):
        blocks.append(_claim(claim))
    if not any(claim["name"] == "retention" for claim in (told.verdict or {}).get("claims", ())):
        blocks.append("Retention: not measured, so what the base forgot is not known.")
    blocks.append(f"Shift: {plain(told.shift)}")
    blocks.append("Contamination: " + " ".join(plain(one) for one in told.contamination))
    blocks.append(f"Subgroups: {_gaps(told.gaps)}")
    return "\n\n".join(blocks)


def _score(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    if row.get("stderr") is None:
        return number(row["value"])
    reach = 1.96 * row["stderr"]
    return f"{number(row['value'])} ({number(row['value'] - reach)} to {number(row['value'] + reach)})"


def _claim(claim: Mapping[str, Any]) -> str:
    head = f"{plain(claim['name']).capitalize()}: **{plain(claim['word'])}**"
    if claim.get("effect") is None:
        return f"{head}. {plain(claim.get('method', ''))}"
    return (
        f"{head}, {plain(claim['metric'])} improved by {number(claim['effect'], signed=True)} "
        f"({number(claim['low'], signed=True)} to {number(claim['high'], signed=True)}, "
        f"{claim['level']:.0%} interval) against {plain(claim['against'])}, "
        f"{count(claim['n_items'])} items x {count(claim['n_seeds'])} seed(s). Positive is better."
    )


def _gaps(found: Gaps | None) -> str:
    if found is None:
        return "not measured; the items have no classes, or too few of each."
    low, high = found.lowest, found.highest
    return (
        f"of {found.groups} classes, right answers are rarest for {code(low[0])} "
        f"({low[1]:.1%} of {low[2]}) and commonest for {code(high[0])} ({high[1]:.1%} of {high[2]})."
    )


def _trained(told: Told) -> str:
    plan, rows = told.plan, []
    for one in plan.stages:
        stage = one.stage
        what = stage.adapter.peft_type if stage.adapter else f"{stage.head.kind} head and chosen parameters"
        share = f"{one.trainable / one.total:.2%}" if one.total else "-"
        steps = "-" if one.steps is None else count(one.steps)
        rate = f"{stage.update.learning_rate:g}, {stage.schedule.kind}"
        cells = (plain(stage.name), plain(what), f"{count(one.trainable)} ({share})", rate)
        rows.append((*cells, count(one.batch.total), steps))
    head = ("stage", "method", "parameters trained", "learning rate", "rows a step", "steps")
    blocks = [
        table(head, rows),
        bullets(f"{plain(one.stage.name)}: {_settings(one)}" for one in plan.stages),
    ]
    strategy = plan.recipe.strategy
    if strategy is not None:
        said = ", ".join(f"{code(key)} = {code(value)}" for key, value in strategy.items())
        blocks.append(f"Strategy: {said}")
    task, quantized = plan.recipe.model.task, plan.recipe.model.quantization
    length = "" if task in WITHOUT_TEXT else f", at most {count(plan.max_length)} tokens a row"
    on = "" if quantized == "none" else f", on a base in {plain(quantized)}"
    blocks.append(f"Seed {plan.seed}{length}, precision {plan.world.dtype}{on}.")
    if told.verified is not None:
        blocks.append(
            f"Verified: {count(told.verified['tensors'])} tensors, "
            f"{count(told.verified['moved'])} moved from their initial values, outputs after reloading "
            f"within {told.verified['max_difference']:.1e}."
        )
    return "\n\n".join(blocks)


def _settings(planned: PlannedStage) -> str:
    """How a stage was trained, beyond what the table of stages says."""
    stage = planned.stage
    update, budget = stage.update, stage.budget
    epochs = "1 epoch" if budget.epochs == 1 else f"{budget.epochs:g} epochs"
    length = epochs if budget.max_steps is None else f"at most {count(budget.max_steps)} steps"
    betas = " and ".join(f"{beta:g}" for beta in update.betas)
    optimizer = "SGD with momentum" if update.optim == "sgd" else f"AdamW with betas {betas}"
    return (
        f"{optimizer}, weight decay {update.weight_decay:g}, gradients clipped at "
        f"{update.max_grad_norm:g}, warm-up over {stage.schedule.warmup_ratio:.0%} of the steps, {length}"
    )


def _data(told: Told) -> str:
    rows = []
    for part in told.data:
        where = code(part.name) + (f" at {code(part.revision)}" if part.revision else "")
        print_ = code(part.sha256) if part.sha256 else "commit" if part.revision else "not known"
        rows.append((plain(part.role), where, count(part.rows), print_, plain(part.licence or "not known")))
    return table(("role", "which", "rows", "SHA-256", "licence"), rows)


def _licence(told: Told) -> str:
    return f"{code(told.chain.licence)}: {plain(told.chain.reason)}.\n\n" + bullets(
        plain(duty) for duty in told.chain.duties
    )


def _cost(told: Told) -> str:
    cost = (told.verdict or {}).get("cost", {})
    spent = cost.get("seconds")
    if spent is None:
        return "Not recorded."
    devices, kind = told.plan.world.processes, told.plan.world.device
    energy = spent * devices * WATTS[kind] / 3600
    amount = f"{energy:.3g} Wh" if energy < 1000 else f"{energy / 1000:,.1f} kWh"
    memory = cost.get("peak_memory_bytes")
    peak = "" if memory is None else f", at most {memory / 1e9:.2f} GB of memory"
    return (
        f"Training took {spent:,.1f} s on {devices} x {plain(kind)}{peak}. Energy is an estimate: about "
        f"{amount}, if each device drew {WATTS[kind]} W."
    )


def _limits(told: Told) -> Sequence[str]:
    verdict = told.verdict or {}
    found = [plain(reason) for reason in verdict.get("reasons", ())]
    missing = verdict.get("missing_arms", ())
    if missing:
        found.append(f"Controls that fit the task and did not run: {plain(', '.join(missing))}.")
    found.append(
        "Scores hold for the test rows named above; other texts, languages and uses were not tested."
    )
    found.append("Safety, bias and misuse were not evaluated.")
    return found
