"""`tlscale check`: what is wrong in a recipe and its data, and what the examples look like to the model."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlscale.cli.inspect import recipe_of
from tlscale.cli.publish import before_training
from tlscale.errors import ExitCode, PlanError, RecipeError
from tlscale.launching.local import lines, worker_command
from tlscale.planning import image_checks
from tlscale.planning.compile import compile_plan
from tlscale.planning.facts import on_hub, read_facts
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text
from tlscale.sources.doctor import SEVERITIES, Finding, Severity, diagnose, ordered

_COLOURS = {"error": "31;1", "warning": "33;1", "note": "36", "trained": "30;42", "masked": "2"}
_HEAD = (
    f"{'role':<11} {'rows':>8} {'examples':>9} {'tokens':>10} {'trained':>8} "
    f"{'a row: min':>10} {'median':>7} {'max':>7} {'rows cut':>9} {'tokens cut':>10} {'unknown':>8}"
)


def check(arguments: argparse.Namespace) -> int:
    """Says every problem of a recipe at once, then what is found in its data; exit code 2 on errors."""
    try:
        recipe = recipe_of(arguments)
    except RecipeError as error:
        if not arguments.json:
            raise
        rows = [{"path": p.path, "given": p.given, "message": p.message} for p in error.problems]
        print(json.dumps({"ok": False, "problems": rows, "findings": []}))
        return int(ExitCode.USAGE)
    findings = () if arguments.no_data else ordered((*diagnose(recipe), *_pictures(recipe)))
    looked: dict[str, Any] | None = None
    if arguments.examples and not _refused(findings):
        looked = inspection(recipe, arguments.examples, offline=arguments.offline)
        known = {(one.role, one.message) for one in findings}
        more = (Finding(**row) for row in looked["findings"])
        findings = ordered((*findings, *(one for one in more if (one.role, one.message) not in known)))
    if recipe.publish is not None and not _refused(findings):
        before_training(compile_plan(recipe, offline=arguments.offline), offline=arguments.offline)
    if arguments.json:
        told = {"ok": not _refused(findings), "problems": [], "findings": [asdict(one) for one in findings]}
        print(json.dumps(told if looked is None else {**told, "examples": looked["roles"]}))
    else:
        _say(arguments, recipe, findings, looked)
    return int(ExitCode.USAGE if _refused(findings) else ExitCode.OK)


def _pictures(recipe: Recipe) -> list[Finding]:
    """How pictures are prepared against what a base in a folder here says; the Hub is left to the plan."""
    name = recipe.model.model_name_or_path
    if recipe.model.task != image_checks.TASK or on_hub(name):
        return []
    try:
        facts = read_facts(recipe.model, labels=(), offline=True)
    except PlanError:
        return []  # the plan says what is wrong with the base
    said: dict[Severity, list[str]] = {
        "error": image_checks.refusals(recipe, facts),
        "warning": image_checks.notes(recipe, facts),
    }
    return [
        Finding(severity, "model", name, "pictures", one) for severity in said for one in said[severity]
    ]


def inspection(recipe: Recipe, examples: int, *, offline: bool) -> dict[str, Any]:
    """What a worker says of the recipe's examples; it runs in a folder that is removed again.

    Raises:
        TlscaleError: the recipe can't be planned, or the worker failed.
    """
    plan = compile_plan(recipe, offline=offline)
    with tempfile.TemporaryDirectory(prefix="tlscale-check-") as folder:
        layout = RunLayout(Path(folder))
        write_text(layout.plan, plan.model_dump_json())
        request = json.dumps({"examples": examples})
        for _ in lines(worker_command(layout.root, "inspect", "--request", request)):
            continue
        found: dict[str, Any] = json.loads(layout.inspection.read_text(encoding="utf-8"))
        return found


def _refused(findings: Sequence[Finding]) -> bool:
    return any(one.severity == "error" for one in findings)


def _say(
    arguments: argparse.Namespace,
    recipe: Recipe,
    findings: Sequence[Finding],
    looked: dict[str, Any] | None,
) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if looked is not None:
        print(rendered(looked["roles"], colour=colour))
    for one in findings:
        head = _painted(f"{one.severity:<8}", one.severity, colour)
        print(f"{head} {one.role:<10} {one.message}  [{one.check}]")
    if arguments.examples and looked is None and not arguments.no_data:
        print("No examples are rendered while there are errors in the data.")
    counts = Counter(one.severity for one in findings)
    if _refused(findings):
        print(f"\n{arguments.recipe}: {_counted(counts)} in the data of {recipe.name}. Nothing was run.")
        return
    more = f"; the data: {_counted(counts)}" if counts else ""
    head = f"{arguments.recipe}: no problems found in {recipe.name}{more}"
    print(f"{head}. Next: tlscale plan {arguments.recipe}")


def _counted(counts: Counter[Severity]) -> str:
    return ", ".join(
        f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in SEVERITIES if counts[name]
    )


def rendered(roles: Sequence[dict[str, Any]], *, colour: bool) -> str:
    """The table of all roles and their rendered examples, as text."""
    said = [_HEAD]
    for role in roles:
        counts = role["per_row"] or {"min": 0, "median": 0, "max": 0}
        trained = f"{role['supervised_tokens'] / role['tokens']:.0%}" if role["supervised_tokens"] else "-"
        unknown = "-" if role["unknown_share"] is None else f"{role['unknown_share']:.1%}"
        said.append(
            f"{role['role']:<11} {role['rows']:>8,} {role['examples']:>9,} {role['tokens']:>10,} "
            f"{trained:>8} {counts['min']:>10,} {counts['median']:>7,.0f} {counts['max']:>7,} "
            f"{role['cut_rows']:>9,} {role['cut_tokens']:>10,} {unknown:>8}"
        )
        if role["rows"] < role["total_rows"]:
            said.append(f"{'':<11} ({role['rows']:,} of {role['total_rows']:,} rows, evenly spaced)")
    if colour:
        legend = f"{_painted('trained on', 'trained', True)} {_painted('masked', 'masked', True)}"
    else:
        legend = "⟦trained on⟧ masked"
    for role in roles:
        for shown in role["shown"]:
            said += ["", f"{role['role']}  {shown['where']}    {legend}", _example(shown, colour)]
    return "\n".join([*said, ""])


def _example(shown: dict[str, Any], colour: bool) -> str:
    text = "".join(_segment(one, colour) for one in shown["segments"])
    if shown["answer"] is None:
        return text
    answer = _painted(shown["answer"], "trained", True) if colour else f"⟦{shown['answer']}⟧"
    return f"{text} -> {answer}"


def _segment(one: dict[str, Any], colour: bool) -> str:
    # Data must not be able to steer the terminal.
    text = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in one["text"])
    if not colour:
        return f"⟦{text}⟧" if one["trained"] else text
    name = "trained" if one["trained"] else "masked"
    return "\n".join(_painted(line, name, True) if line else "" for line in text.split("\n"))


def _painted(text: str, name: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if colour else text
