"""Writes a run's report into its directory: report.html and report.md."""

from __future__ import annotations

from pathlib import Path

from tlscale.report.document import document
from tlscale.report.html import html
from tlscale.report.markdown import markdown
from tlscale.report.read import read
from tlscale.report.types import Verdict
from tlscale.runs.record import write_text

HTML, MARKDOWN = "report.html", "report.md"


def render(run: Path, verdict: Verdict) -> Path:
    """Writes both reports of the run (or of the repeats by seed) in `run`; returns the HTML's path.

    Raises:
        PlanError: there is no run in `run`.
    """
    made = document(read(run), verdict)
    write_text(run / MARKDOWN, markdown(made))
    write_text(run / HTML, html(made))
    return run / HTML
