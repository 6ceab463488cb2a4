"""What a verdict must say of how its settings were chosen, and how often its rows were looked at."""

from __future__ import annotations

from pathlib import Path

from tlscale.report.evidence import Evidence
from tlscale.runs.record import read_lines

CANDIDATE = "tuned"


def looks(evidence: Evidence) -> list[str]:
    """Sentences on the rows and settings behind a verdict; none where there is nothing to say."""
    asked = evidence.seeds[0].plan.recipe.evaluate
    said = []
    if asked.split != "test":
        said.append(
            f"Judged on the {asked.split} rows, which are there to choose settings by: this says nothing "
            "sure about new rows."
        )
    times = max((_times(run.layout.events) for run in evidence.seeds), default=0)
    if times > 1:
        said.append(
            f"The test rows were scored {times} times with this run's result; whatever was changed in "
            "between was chosen on them."
        )
    return said + _trials(asked.trials)


def _times(events: Path) -> int:
    rows = (row for row in read_lines(events) if row.get("event") == "scored")
    return sum(row["arm"] == CANDIDATE and row["split"] == "test" for row in rows)


def _trials(trials: dict[str, int]) -> list[str]:
    if not trials:
        return []
    counts = ", ".join(f"{arm} {count}" for arm, count in trials.items())
    equal = len(set(trials.values())) == 1
    fair = "" if equal else "; not as many for each, so the comparison favours the one with more"
    return [f"Settings tried on the validation rows before this run: {counts}{fair}."]
