"""The part of a report that accounts for the run: training, cost, plan against reality, provenance, use."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime

from tlscale.planning.types import Plan
from tlscale.recipe.types import Source
from tlscale.report import figures
from tlscale.report.blocks import Block, Code, Column, Figure, Pair, Pairs, Section, Table, Text
from tlscale.report.read import RunFacts, SeedFacts, StageFacts, file_digest
from tlscale.report.types import Verdict
from tlscale.report.words import MINUS, change, count, joined, number, percent, plural, seconds, size, unit

ROLES = ("train", "validation", "test", "retention", "replay", "unlabelled")
NOT_RECORDED = "not recorded"


def training(run: RunFacts) -> Section | None:
    """Loss, validation loss and learning rate of every stage, a line for each seed."""
    blocks: list[Block] = []
    for index, stage in enumerate(run.first.stages):
        repeats = [seed.stages[index] for seed in run.seeds]
        blocks += _curves(stage.name, repeats, many=len(run.first.stages) > 1)
    return Section("training", "Training", tuple(blocks)) if blocks else None


def _curves(name: str, repeats: list[StageFacts], *, many: bool) -> list[Block]:
    drawn = [stage for stage in repeats if stage.points]
    if not drawn:
        return []
    where = f", stage {name}" if many else ""
    faint = "" if len(drawn) == 1 else " faint"
    first, last = drawn[0].points[0], drawn[0].points[-1]
    lines = [
        figures.Curve(tuple((float(p.step), p.loss) for p in stage.points), f"loss{faint}")
        for stage in drawn
    ]
    lines += [
        figures.Curve(tuple((float(s), v) for s, v in stage.validated), "validation", dots=True)
        for stage in drawn
        if stage.validated
    ]
    start, end = (f"{number(p.loss, 3)} at step {p.step:,}" for p in (first, last))
    lowest = min((v for stage in drawn for _, v in stage.validated), default=None)
    also = "" if lowest is None else f" Dots: on the validation rows, lowest {number(lowest, 3)}."
    seeds = "" if len(drawn) == 1 else f" One line a seed, {len(drawn)} in all; figures are of the first."
    about = f"Training loss{where} in nats, by optimizer step: from {start} to {end}.{also}{seeds}"
    blocks: list[Block] = [
        Figure(figures.curves(f"loss-{name}", f"Training loss{where}", about, lines), about, alone=True)
    ]
    rate = figures.Curve(tuple((float(p.step), p.learning_rate) for p in drawn[0].points), "rate")
    peak = max(p.learning_rate for p in drawn[0].points)
    about = f"Learning rate{where}, by optimizer step; peak {peak:.2g}."
    svg = figures.curves(f"rate-{name}", f"Learning rate{where}", about, [rate], height=120)
    return [*blocks, Figure(svg, about, alone=True)]


def cost(run: RunFacts, verdict: Verdict) -> Section:
    """Parameters trained, time, speed, memory, and what the gain cost."""
    given = verdict.cost
    trainable, total = given.get("trainable"), given.get("total")
    pairs = []
    blocks: list[Block] = []
    if trainable is not None and total:
        share = trainable / total
        pairs.append(
            Pair("parameters trained", count(trainable), f"of {count(total)} ({percent(share, 2)})")
        )
        pieces = (
            figures.Part("trained", round(trainable), "tuned"),
            figures.Part("not trained", round(total - trainable), "neither"),
        )
        title = f"Parameters trained: {percent(share, 2)} of {count(total)}"
        blocks.append(Figure(figures.parts("parameters", title, pieces), title + "."))
    spent, tokens = given.get("seconds"), given.get("tokens")
    if spent is not None:
        many = len(run.seeds) > 1
        repeats = f"training alone, {len(run.seeds)} seeds together" if many else "training alone"
        pairs.append(Pair("training time", seconds(spent), repeats))
    walls = [seed.wall_seconds for seed in run.seeds if seed.wall_seconds is not None]
    if walls:
        pairs.append(Pair("whole run", seconds(sum(walls)), "with data, evaluation and saving"))
    if tokens:
        pairs.append(Pair("tokens trained on", count(tokens)))
    if tokens and spent:
        pairs.append(Pair("speed", joined(count(tokens / spent), "tokens/s"), "mean over training"))
    peak = given.get("peak_memory_bytes")
    pairs.append(
        Pair("peak memory", NOT_RECORDED) if peak is None else Pair("peak memory", size(peak), "measured")
    )
    target = verdict.claim("target")
    if target and target.effect is not None and target.metric is not None and spent:
        of = unit(target.metric, run.task)
        per = change(target.effect / (spent / 60), of)
        pairs.append(Pair("gain per minute of training", per, "improvement / training time"))
    return Section("cost", "What it cost", (*blocks, Pairs(tuple(pairs))))


def reality(run: RunFacts, verdict: Verdict) -> Section:
    """What the plan said beside what happened, for the first seed."""
    first, rows = run.first, []
    for stage in first.stages:
        rows += _stage_rows(stage, many=len(first.stages) > 1)
    peak = verdict.cost.get("peak_memory_bytes")
    estimate = max((sum(m.bytes for m in s.planned.memory) for s in first.stages), default=0)
    if estimate:
        real = NOT_RECORDED if peak is None else size(peak)
        rows.append(("peak memory per device", f"about {size(estimate)}", real))
    planned = {data.role: data.rows for data in first.plan.data}
    for role in first.roles:
        expected = planned.get(role.role)
        rows.append(
            (f"{role.role} rows", "not counted" if expected is None else count(expected), count(role.rows))
        )
    blocks: list[Block] = [
        Table(
            "Planned, and what happened",
            (Column(""), Column("planned", True), Column("real", True)),
            tuple(rows),
        )
    ]
    lost = [role for role in first.roles if role.cut_rows or role.dropped_rows]
    for role in lost:
        blocks.append(
            Text(
                f"{role.role}: {plural(role.cut_rows, 'row')} cut by {plural(role.cut_tokens, 'token')}, "
                f"{plural(role.dropped_rows, 'row')} dropped; at most {first.plan.max_length:,} tokens."
            )
        )
    if not lost and first.roles:
        blocks.append(Text("No row was cut or dropped.", note=True))
    blocks += [Text(f"Warning while running: {text}") for text in first.warnings]
    blocks += [Text(f"Note of the plan: {text}", note=True) for text in first.plan.notes]
    return Section("plan", "Plan and reality", tuple(blocks))


def _stage_rows(stage: StageFacts, *, many: bool) -> list[tuple[str, str, str]]:
    planned, name = stage.planned, f"{stage.name}: " if many else ""
    early = " (stopped early)" if stage.stopped_early else ""
    steps = "known once data is read" if planned.steps is None else count(planned.steps)
    real = "did not finish" if stage.steps is None else f"{count(stage.steps)}{early}"
    about = "" if planned.exact else "about "
    rows = [(f"{name}optimizer steps", steps, real)]
    found = stage.verified or {}
    trained = f"{found['moved']} of {found['tensors']} tensors moved" if found else "not verified"
    rows.append((f"{name}parameters trained", f"{about}{count(planned.trainable)}", trained))
    if found:
        limit, apart = found.get("tolerance"), found["max_difference"]
        rows.append(
            (
                f"{name}reload of the result",
                f"within {limit:g}".replace("-", MINUS) if limit else "equal",
                f"{apart:.1e} apart" if apart else "identical",
            )
        )
    return rows


def provenance(run: RunFacts, verdict: Verdict) -> Section:
    """Where everything came from: plan, base, data with digests, versions."""
    plan, first = run.first.plan, run.first
    facts = plan.facts
    rows = [
        ("base model", facts.model),
        ("its commit", facts.commit or "none: a folder on disk"),
        ("architecture", f"{facts.architecture.model_type}, {facts.architecture.layers} layers"),
        ("device", f"{plural(plan.world.processes, 'process')} on {plan.world.device}, {plan.world.dtype}"),
        ("seeds", ", ".join(str(seed.plan.seed) for seed in run.seeds)),
    ]
    for name, fingerprint in sorted(verdict.fingerprints.items()):
        rows.append((f"plan {name}".removesuffix(" ."), fingerprint))
    if not all(seed.sealed for seed in run.seeds):
        rows.append(("the plan's seal", "broken: changed after it was written, or by another version"))
    if first.started is not None:
        when = datetime.fromtimestamp(first.started, UTC)
        rows.append(("started", f"{when:%Y-%m-%d %H:%M} UTC"))
    rows += [(f"{name} version", version) for name, version in first.versions.items()]
    data = Table(
        "Data, as it lay there when this report was written",
        (Column("role"), Column("where"), Column("bytes", True), Column("SHA-256")),
        tuple(_data_rows(plan)),
    )
    about = Table("Model, plan and software", (Column("what"), Column("which")), tuple(rows))
    blocks: list[Block] = [about, data]
    for stage in first.stages:
        if stage.manifest is not None:
            blocks.append(_files(stage, stage.manifest))
    return Section("provenance", "Provenance", tuple(blocks))


def _data_rows(plan: Plan) -> Iterable[tuple[str, ...]]:
    for role in ROLES:
        source: Source | None = getattr(plan.recipe.data, role)
        if source is None:
            continue
        if source.hub is not None:
            yield role, f"{source.hub} {source.split}", "", f"commit {source.revision or 'not pinned'}"
            continue
        found = file_digest(source)
        digest, length = ("not one file here", "") if found is None else (found[0], count(found[1]))
        yield role, source.path or "", length, digest


def _files(stage: StageFacts, manifest: object) -> Table:
    files = manifest.get("files", {}) if isinstance(manifest, dict) else {}
    columns = (Column("file"), Column("bytes", True), Column("SHA-256"))
    rows = tuple((name, count(entry["bytes"]), entry["sha256"]) for name, entry in sorted(files.items()))
    return Table(f"The result of stage {stage.name}, sealed by its manifest", columns, rows, folded=True)


def use(run: RunFacts) -> Section:
    """How to do it again, load the result, and publish it."""
    first = run.first
    folder = first.layout.adapter
    recipe = shlex.quote(str(first.layout.recipe))
    again = (
        f"pip install tlscale=={first.versions.get('tlscale', '')}".rstrip("=") + "\n"
        f"tlscale run {recipe} output_dir=runs/again"
    )
    blocks: list[Block] = [
        Text("The same recipe, data and versions give the same plan; its fingerprint stands above."),
        Code("Do it again", again, "sh"),
    ]
    kind = _kind(first)
    if kind is not None:
        blocks.append(Code("Load the result", _loading(kind, str(folder), run), "python"))
        verify, upload = shlex.quote(str(first.layout.root)), shlex.quote(f"{folder}/")
        blocks += [
            Code("Check that it is whole and reloads exactly", f"tlscale verify {verify}", "sh"),
            Code("Publish it", f"hf upload YOU/NAME {upload} .", "sh"),
        ]
    blocks.append(Code("The recipe", run.recipe, "yaml", folded=True))
    return Section("use", "Use it again", tuple(blocks))


def _kind(seed: SeedFacts) -> str | None:
    made = [stage.manifest for stage in seed.stages if stage.manifest is not None]
    return str(made[-1]["kind"]) if made else None


PEFT_CLASSES = {
    "causal-lm": "AutoPeftModelForCausalLM",
    "sequence-classification": "AutoPeftModelForSequenceClassification",
}
AUTO_CLASSES = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "sentence-embedding": "AutoModel",
}


def _loading(kind: str, folder: str, run: RunFacts) -> str:
    """Python that loads the result; a head of our own needs tlscale, the rest does not."""
    manifest = next(s.manifest for s in reversed(run.first.stages) if s.manifest is not None)
    if kind == "head" or "head.json" in manifest.get("files", {}):
        root = str(run.first.layout.root)
        return (
            "from pathlib import Path\n\n"
            "from tlscale.models import artifact\n"
            "from tlscale.planning.compile import read_plan\n\n"
            f"run = Path({root!r})\n"
            'plan = read_plan(run / "plan.json")\n'
            "model = artifact.load(\n"
            '    run / "adapter", model=plan.recipe.model, facts=plan.facts, world=plan.world\n'
            ")"
        )
    if kind == "adapter" and run.task in PEFT_CLASSES:
        name = PEFT_CLASSES[run.task]
        return f"from peft import {name}\n\nmodel = {name}.from_pretrained({folder!r})"
    name = AUTO_CLASSES[run.task]
    if kind == "adapter":
        base = run.first.plan.facts.model
        return (
            f"from peft import PeftModel\nfrom transformers import {name}\n\n"
            f"base = {name}.from_pretrained({base!r}, revision={run.first.plan.facts.commit!r})\n"
            f"model = PeftModel.from_pretrained(base, {folder!r})"
        )
    return f"from transformers import {name}\n\nmodel = {name}.from_pretrained({folder!r})"
