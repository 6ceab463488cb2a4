"""A plan as a small HTML table for notebooks; everything in it is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tlscale.planning.render import count, size
from tlscale.planning.types import Plan


def plan_page(plan: Plan) -> str:
    """The plan's stages, with what they train and the memory they are estimated to need."""
    rows = []
    for planned in plan.stages:
        stage, share = planned.stage, planned.trainable / planned.total if planned.total else 0.0
        rows.append(
            (
                stage.name,
                stage.adapter.peft_type if stage.adapter else stage.head.kind,
                f"{count(planned.trainable)} of {count(planned.total)} ({share:.2%})",
                f"{planned.batch.total} rows",
                "not known yet" if planned.steps is None else f"{planned.steps:,}",
                f"{size(sum(item.bytes for item in planned.memory))} GB",
            )
        )
    model = plan.facts.model.rpartition("/")[2]
    about = f"{plan.recipe.name}: {model}, {plan.recipe.model.task}, on {plan.world.device}"
    headings = ("stage", "method", "trains", "batch", "steps", "memory per device (estimate)")
    notes = plan.notes if rows else ("no training: the base is scored as it is", *plan.notes)
    return html_table(about, headings, rows, notes)


def html_table(
    caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """A table with a caption, and notes below it; all text is escaped."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
    return f"{table}<tbody>{body}</tbody></table>{below}"
