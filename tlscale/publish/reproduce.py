"""Doing a run again: its recipe, looked at first, on your copy of its data, and the difference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tlscale.errors import DataError, UsageError, VerificationError
from tlscale.planning.compile import read_plan, versions
from tlscale.publish import intake
from tlscale.publish.content import latest
from tlscale.publish.evidence import ROLES, fingerprint
from tlscale.publish.push import RECORD
from tlscale.recipe.load import check
from tlscale.recipe.parse import parse_yaml
from tlscale.recipe.paths import BUILTIN
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import read_lines

# What a recipe from elsewhere may ask for; the rest starts programs, reads files or asks other hosts.
SECTIONS = (
    "version", "name", "seed", "model", "data", "strategy", "stages", "train", "hardware", "evaluate",
    "report",
)  # fmt: skip
EVALUATE = (
    "target", "retention", "against", "max_rows", "max_new_tokens", "label_template", "tasks", "shots",
    "shot_selection", "order_seeds", "calibration", "chat", "cut_share", "contamination",
)  # fmt: skip
MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
WORDS = ("strategy", "stages", "train", "hardware", "report", "evaluate")


@dataclass(frozen=True)
class Original:
    """What is to be done again: its recipe, its scores, its data's fingerprints by role, its versions."""

    name: str
    raw: Mapping[str, Any]
    scores: tuple[Mapping[str, Any], ...]
    data: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One score then and now."""

    suite: str
    metric: str
    arm: str
    then: float
    now: float

    @property
    def difference(self) -> float:
        return self.now - self.then


def of_run(layout: RunLayout) -> Original:
    """A run on this machine; its data are where they were."""
    plan = read_plan(layout.plan)
    raw = json.loads(plan.recipe.model_dump_json(exclude_defaults=True))
    raw = {
        key: value for key, value in raw.items() if key not in ("publish", "launch", "seeds", "output_dir")
    }
    scores = tuple(latest(layout))
    return Original(str(layout.root), {**raw, "seed": plan.seed}, scores, {}, plan.versions)


def of_publication(folder: Path, name: str) -> Original:
    """What was fetched from the Hub into `folder`.

    Raises:
        VerificationError: its recipe asks for what a recipe from elsewhere may not, or a file is damaged.
    """
    file = folder / "recipe.yaml"
    if not file.is_file():
        raise VerificationError(f"{name}: has no recipe.yaml, so it can't be done again")
    try:
        raw = parse_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise VerificationError(f"{name}: recipe.yaml: {error}") from error
    problems = list(_problems(raw))
    if problems:
        raise VerificationError("\n".join(f"{name}: recipe.yaml: {problem}" for problem in problems))
    record = intake.read(folder / RECORD) or {}
    plan = intake.read(folder / "plan.json") or {}
    scores = tuple(_scores(folder / "measurements.jsonl", name))
    data, known = record.get("data"), plan.get("versions")
    return Original(
        name,
        raw,
        scores,
        data if isinstance(data, dict) else {},
        known if isinstance(known, dict) else {},
    )


def _problems(raw: Any) -> Iterable[str]:
    if not isinstance(raw, dict):
        yield "a recipe is a mapping"
        return
    for key in raw:
        if key not in SECTIONS:
            yield f"{key}: not taken from elsewhere"
    model = raw.get("model")
    base = model.get("model_name_or_path") if isinstance(model, dict) else None
    if not isinstance(base, str) or not (intake.HUB_ID.fullmatch(base) or base.startswith(BUILTIN)):
        yield f"model.model_name_or_path: {base!r:.80} is no id on the Hub"
    elif isinstance(model, dict) and (model.get("trust_remote_code") or model.get("chat_template")):
        yield "model: trust_remote_code and chat_template are not taken from elsewhere"
    evaluate = raw.get("evaluate")
    for key in evaluate if isinstance(evaluate, dict) else ():
        if key not in EVALUATE:
            yield f"evaluate.{key}: not taken from elsewhere"
    for where, value in intake.leaves({key: raw[key] for key in WORDS if key in raw}):
        if isinstance(value, str) and (intake.PLACE.search(value) or MODULE.fullmatch(value)):
            yield f"{where}: {value!r:.80} names a file, an address or a module"
    yield from _sources(raw.get("data"))


def _sources(data: Any) -> Iterable[str]:
    for role, source in data.items() if isinstance(data, dict) else ():
        path = source.get("path") if isinstance(source, dict) else None
        if isinstance(path, str) and not path.startswith(BUILTIN) and Path(path).name != path:
            yield f"data.{role}.path: {path!r:.80} leaves the folder"


def _scores(path: Path, name: str) -> Iterable[Mapping[str, Any]]:
    for row in read_lines(path):
        if not isinstance(row, dict) or not isinstance(row.get("value"), (int, float)):
            raise VerificationError(f"{name}: measurements.jsonl is damaged")
        yield row


def recipe_again(original: Original, overrides: Sequence[str], output: Path) -> Recipe:
    """The recipe with the user's own paths, for a new run directory.

    Raises:
        RecipeError: with every problem, such as data that are not here.
        UsageError: a data file is not the one that the original was trained or scored on.
    """
    raw = {**original.raw, "output_dir": str(output)}
    recipe = check(raw, overrides, source=original.name)
    for role in ROLES:
        source, said = getattr(recipe.data, role), original.data.get(role)
        if source is None or said is None:
            continue
        try:
            found = fingerprint(source)
        except DataError:
            found = None
        if found != said:
            raise UsageError(
                f"data.{role}: {source.path} is not the file of the original: its SHA-256 is {found}, "
                f"theirs {said}; give theirs with data.{role}.path=FILE"
            )
    return recipe


def compared(original: Original, layout: RunLayout) -> tuple[Row, ...]:
    """Every score that both runs have."""
    now = {(r["suite"], r["metric"], r["arm"]): r["value"] for r in latest(layout)}
    rows = []
    for row in original.scores:
        key = (row["suite"], row["metric"], row["arm"])
        if key in now:
            rows.append(Row(*key, then=float(row["value"]), now=float(now[key])))
    return tuple(rows)


def described(name: str, output: Path, rows: Sequence[Row]) -> str:
    """The scores side by side, as plain text."""
    lines = [
        f"{name}, then and now in {output}",
        f"  {'suite':<10} {'metric':<12} {'arm':<8} {'then':>12} {'now':>12} {'difference':>12}",
    ]
    for row in rows:
        ends = f"{row.then:>12.6f} {row.now:>12.6f} {row.difference:>+12.2e}"
        lines.append(f"  {row.suite:<10} {row.metric:<12} {row.arm:<8} {ends}")
    return "\n".join(lines)


def other_versions(original: Original) -> tuple[str, ...]:
    """Packages that are another version here than there."""
    here = versions()
    return tuple(
        f"{name} {there} there, {here.get(name, 'none')} here"
        for name, there in original.versions.items()
        if here.get(name) != there
    )
