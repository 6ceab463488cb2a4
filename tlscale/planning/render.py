"""A plan as text for a terminal: what will happen, and what it costs."""

from __future__ import annotations

from tlscale.planning.carrying import SAID
from tlscale.planning.types import Plan, PlannedStage, Stage

SHOWN_COMMIT = 8


def table(plan: Plan) -> str:
    """The plan in plain text, without colours; every figure of memory is an estimate and says so."""
    blocks = ["\n".join(_head(plan))]
    blocks += ["\n".join(_stage(plan, planned)) for planned in plan.stages]
    if not plan.stages:
        blocks.append("no training: the base is scored as it is")
    if plan.notes:
        blocks.append("\n".join(f"note: {note}" for note in plan.notes))
    return "\n\n".join(blocks)


def _head(plan: Plan) -> list[str]:
    facts, world = plan.facts, plan.world
    commit = f" @ {facts.commit[:SHOWN_COMMIT]}" if facts.commit else ""
    classes = f"   {len(facts.labels)} classes" if facts.labels else ""
    new = " (new head)" if facts.head_is_new else ""
    room = "" if world.memory_per_device is None else f", {size(world.memory_per_device)} GB each"
    processes = f"{world.processes} process{'' if world.processes == 1 else 'es'}"
    lines = [
        f"{facts.model}{commit}   {plan.recipe.model.task}{classes}{new}",
        f"world    {processes} on {world.device}{room}   {world.dtype}   seed {plan.seed}",
    ]
    for data in plan.data:
        rows = "rows not counted" if data.rows is None else f"{data.rows:,} rows"
        kind = f", {data.format}" if data.format else ""
        lines.append(f"{data.role:<8} {data.where}   {rows}{kind}")
    return lines


def _stage(plan: Plan, planned: PlannedStage) -> list[str]:
    stage, batch = planned.stage, planned.batch
    about = "" if planned.exact else "about "
    share = planned.trainable / planned.total if planned.total else 0.0
    method = f"{stage.adapter.peft_type} " if stage.adapter else ""
    length = f", {plan.max_length:,} tokens at most" if plan.facts.architecture.vocab_size else ""
    steps = "steps known once the data is prepared" if planned.steps is None else f"{planned.steps:,} steps"
    trains = f"trains {about}{count(planned.trainable)} of {count(planned.total)} ({share:.2%})"
    product = f"{batch.micro} x {batch.accumulation} x {batch.world} (rows x passes x processes)"
    return [
        f"stage {stage.name}   {method}{SAID[stage.carry].format(stage.starts_from)}   {trains}",
        f"batch    {batch.total} rows = {product}{length}   {steps}",
        *_joining(stage),
        "",
        *_memory(plan, planned),
    ]


def _joining(stage: Stage) -> list[str]:
    """At which steps resting parameters begin to train."""
    begins = sorted({rule.from_step for rule in stage.rules if rule.lr_scale is not None})
    if len(begins) < 2:
        return []
    return [f"joining  {len(begins)} groups of parameters, at steps {', '.join(map(str, begins))}"]


def _memory(plan: Plan, planned: PlannedStage) -> list[str]:
    total = sum(item.bytes for item in planned.memory)
    room = plan.world.memory_per_device
    unit = 1e9 if total >= 1e9 else 1e6
    word = "GB" if unit == 1e9 else "MB"
    width = max([len("memory per device (estimate)"), *(len(item.name) + 2 for item in planned.memory)])
    lines = [f"{'memory per device (estimate)':<{width}}  {word:>9}"]
    for item in planned.memory:
        note = f"   {item.note}" if item.note else ""
        lines.append(f"{'  ' + item.name:<{width}}  {_figure(item.bytes / unit):>9}{note}")
    of = "" if room is None else f"   of {room / unit:,.0f}"
    lines.append(f"{'  total':<{width}}  {_figure(total / unit):>9}{of}")
    if room is not None and total > room:
        lines.append(f"It does not fit: {size(total - room)} GB too much.")
    return lines


def _figure(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def size(value: int) -> str:
    """Bytes in GB (10^9) with one decimal, two below 1 GB."""
    return f"{value / 1e9:,.1f}" if value >= 1e9 else f"{value / 1e9:.2f}"


def count(value: int) -> str:
    """A number of parameters with three figures: 41.9 M, 8.07 B."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return str(value)


def headline(plan: Plan) -> str:
    """The plan in one line."""
    model = plan.facts.model.rpartition("/")[2]
    if not plan.stages:
        return f"{model}, no training, {len(plan.data)} sets of rows"
    parts = []
    for planned in plan.stages:
        adapter = planned.stage.adapter
        what = adapter.peft_type if adapter else planned.stage.head.kind
        share = planned.trainable / planned.total
        parts.append(f"{planned.stage.name}: {what}, trains {count(planned.trainable)} ({share:.2%})")
    peak = max(sum(item.bytes for item in planned.memory) for planned in plan.stages)
    return f"{model}, {'; '.join(parts)}, peak about {size(peak)} on {plan.world.device}"
