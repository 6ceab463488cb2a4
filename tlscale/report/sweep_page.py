"""A sweep as a page: what was tried, what came of it, and target against retention."""

from __future__ import annotations

import json
from pathlib import Path

from tlscale.evaluation.types import HIGHER_IS_BETTER
from tlscale.report.blocks import (
    Block,
    Code,
    Column,
    Document,
    Figure,
    Opening,
    Pair,
    Pairs,
    Section,
    Table,
    Text,
)
from tlscale.report.html import html
from tlscale.report.markdown import markdown
from tlscale.report.scatter import Spot, scatter
from tlscale.report.sweeps import Search, SweepResult, front
from tlscale.report.words import number, plural, seconds
from tlscale.runs.record import write_text
from tlscale.runs.sweep import SweepLayout

HTML, MARKDOWN = "report.html", "report.md"


def render(folder: Path, result: SweepResult) -> Path:
    """Writes the page of the sweep in `folder`, as HTML and Markdown; returns the HTML's path."""
    made = document(result, SweepLayout(folder))
    write_text(folder / MARKDOWN, markdown(made))
    write_text(folder / HTML, html(made))
    return folder / HTML


def document(result: SweepResult, layout: SweepLayout) -> Document:
    """The page, with one section for each arm."""
    first = result.searches[0]
    chosen = first.chosen
    value = "nothing" if chosen is None or chosen.value is None else number(chosen.value, 4)
    settings = "" if chosen is None else ", ".join(f"{k} {shown(v)}" for k, v in chosen.parameters.items())
    spent = sum(trial.seconds or 0.0 for search in result.searches for trial in search.trials)
    opening = Opening(
        label="Sweep",
        word=f"{first.metric} {value}",
        tone="plain",
        sentence=f"The best of {plural(len(first.trials), 'trial')} has {settings}." if settings else "",
        caution="Measured on the validation rows that chose it, so it flatters. The test rows were not "
        "read: run best.yaml for a verdict.",
        figure=None,
        pairs=Pairs((Pair("time", seconds(spent), "all trials together"),)),
        second=None,
    )
    sections = [Section(search.arm, _title(search), tuple(_blocks(search))) for search in result.searches]
    use = Code("Run the best", f"tlscale run {layout.best}", "sh")
    return Document(
        title=result.name,
        about=tuple(f"{search.arm}: {plural(len(search.trials), 'trial')}" for search in result.searches),
        opening=opening,
        sections=(*sections, Section("use", "Use it", (use,))),
    )


def shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _title(search: Search) -> str:
    return "Trials" if search.arm == "tuned" else f"Trials of the control arm {search.arm}"


def _blocks(search: Search) -> list[Block]:
    blocks: list[Block] = []
    edge = {trial.number for trial in front(search)}
    if edge and search.retention_metric is not None:
        blocks += _plane(search, edge, search.retention_metric)
    kept = (Column("retention", True),) if search.retention_metric else ()
    columns = (
        Column("trial"), Column(search.metric, True), *kept,
        *(Column(name, True) for name in search.parameters), Column("time", True), Column("state"),
    )  # fmt: skip
    sign = -1.0 if search.higher_is_better else 1.0
    rows = []
    for trial in sorted(search.trials, key=lambda t: (t.value is None, sign * (t.value or 0.0), t.number)):
        marks = [trial.state, *(["best"] if trial.number == search.best else [])]
        marks += ["on the front"] if trial.number in edge else []
        rows.append(
            (
                str(trial.number),
                "" if trial.value is None else number(trial.value, 4),
                *(["" if trial.retention is None else number(trial.retention, 4)] if kept else []),
                *(shown(trial.parameters.get(name)) for name in search.parameters),
                "" if trial.seconds is None else seconds(trial.seconds),
                "; ".join([", ".join(marks), *([trial.reason] if trial.reason else [])]),
            )
        )
    blocks.append(Table(f"{plural(len(rows), 'trial')}, best first", columns, tuple(rows)))
    return blocks


def _plane(search: Search, edge: set[int], kept: str) -> list[Block]:
    spots = [
        Spot(
            t.value, t.retention, "tuned" if t.number in edge else "other", t.number in edge,
            str(t.number) if t.number in edge else "",
        )
        for t in search.trials
        if t.state == "complete" and t.value is not None and t.retention is not None
    ]  # fmt: skip
    x_axis = f"target {search.metric}, {_better(search.higher_is_better)}"
    y_axis = f"retention {kept}, {_better(HIGHER_IS_BETTER[kept])}"
    title = f"Target against retention, {plural(len(spots), 'trial')}"
    about = (
        f"{title}. The joined points are the front: no other trial is better on one without being worse on "
        f"the other. Numbers are trials: {', '.join(map(str, sorted(edge)))}."
    )
    svg = scatter(f"front-{search.arm}", title, about, spots, x_axis=x_axis, y_axis=y_axis)
    note = "A gentler rate forgets less and learns less; compare methods by their fronts, not at one rate."
    return [Figure(svg, about), Text(note, note=True)]


def _better(higher: bool) -> str:
    return "better to the right or up" if higher else "better to the left or down"
