"""`tlscale eval`: a run's own suites again, or evaluation tasks on a run or any model."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlscale.cli.execute import comparison, existing, measurements, summary
from tlscale.errors import ExitCode, UsageError
from tlscale.evaluation.types import Measurement
from tlscale.launching.local import launch, worker_command
from tlscale.planning.compile import read_plan, versions
from tlscale.planning.scoring import base_of_adapter, is_address, plan_scoring
from tlscale.planning.types import Plan
from tlscale.recipe.evaluate import Evaluate
from tlscale.recipe.load import check
from tlscale.recipe.paths import missing_file
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_text

DATA = "TLSCALE_DATA"


def evaluate(arguments: argparse.Namespace) -> int:
    """Scores a run's suites again, or tasks on a run's base and result or on any model."""
    is_run = RunLayout(Path(arguments.model)).plan.is_file()
    if arguments.tasks is None:
        return _again(arguments)
    if is_run:
        layout, plan = _run(arguments)
        asked = _asked_of_run(plan, arguments)
    else:
        recipe = _recipe(arguments)
        asked = recipe.evaluate
        layout, plan = _made(recipe, arguments)
        asked = asked.model_copy(update={"predictor": plan.recipe.evaluate.predictor})
    request = json.dumps({"evaluate": asked.model_dump(mode="json")})
    command = worker_command(layout.root, "tasks", "--request", request, processes=plan.world.processes)
    code = launch(command, quiet=arguments.json)
    if arguments.json:
        print(json.dumps(summary(layout)))
    else:
        print(f"\n{table(layout)}")
    if not code and arguments.gate:
        _gate(layout)
    return code


def _again(arguments: argparse.Namespace) -> int:
    if arguments.overrides or arguments.shots or arguments.predictor or arguments.output or arguments.limit:
        raise UsageError("a run's own suites are scored as its plan says; these settings go with --tasks")
    layout = RunLayout(Path(arguments.model))
    if not layout.plan.is_file():
        raise UsageError(
            f"{arguments.model}: not a run directory (it has no {layout.plan.name}); a model is scored on "
            "tasks: give --tasks A,B"
        )
    processes = read_plan(layout.plan).world.processes
    code = launch(worker_command(layout.root, "evaluate", processes=processes), quiet=arguments.json)
    if code:
        return code
    print(json.dumps(summary(layout)) if arguments.json else f"\n{comparison(layout)}")
    if arguments.gate:
        _gate(layout)
    return int(ExitCode.OK)


def _gate(layout: RunLayout) -> None:
    from tlscale.cli.judge import conclude, gate  # numpy and scipy

    gate(conclude(layout.root))


def _run(arguments: argparse.Namespace) -> tuple[RunLayout, Plan]:
    if arguments.output is not None:
        raise UsageError("--output: a run's scores go into the run")
    layout = existing(arguments.model)
    return layout, read_plan(layout.plan)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as a recipe's `evaluate` would."""
    found: dict[str, Any] = {"tasks": _listed(arguments.tasks)}
    if not found["tasks"]:
        raise UsageError("--tasks: name at least one task; `tlscale tasks` lists them")
    if arguments.shots is not None:
        found["shots"] = _numbers(arguments.shots, "--shots")
    if arguments.limit is not None:
        found["max_rows"] = arguments.limit
    if arguments.predictor is not None:
        found["predictor"] = arguments.predictor
    if arguments.chat:
        found["chat"] = True
    folder = arguments.data_dir or os.environ.get(DATA)
    if folder:
        found["data_dir"] = folder
    return found


def _asked_of_run(plan: Plan, arguments: argparse.Namespace) -> Evaluate:
    """The run's own settings with those of the command line over them."""
    foreign = [one for one in arguments.overrides if not one.startswith("evaluate.")]
    if foreign:
        raise UsageError(
            f"{foreign[0]}: of a run, only evaluate.KEY=VALUE can be set; its plan says the rest"
        )
    own = plan.recipe.model_dump(mode="json", exclude_unset=True)
    raw = {**own, "evaluate": {**own.get("evaluate", {}), **_settings(arguments)}}
    return check(raw, arguments.overrides, source="the command line", environment=os.environ).evaluate


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """A recipe that trains nothing, of a model, adapter or address.

    Raises:
        UsageError: there is no such folder, or a setting can't be meant.
    """
    given = arguments.model
    settings = _settings(arguments)
    model: dict[str, Any] = {"model_name_or_path": given, "task": "causal-lm"}
    folder = Path(given).expanduser()
    if not is_address(given) and not folder.exists() and given.count("/") != 1 and ":" not in given:
        raise UsageError(f"{given}: {missing_file(given)}")
    adapter = base_of_adapter(folder) if folder.is_dir() else None
    if adapter is not None:
        model |= _under(folder, adapter)
        settings["adapter"] = given
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", re.split("[/:]", given.rstrip("/"))[-1])
    raw = {
        "version": 1,
        "name": name.strip("-._") or "model",
        "model": model,
        "strategy": {"kind": "none"},
        "evaluate": settings,
    }
    return check(raw, arguments.overrides, source="the command line", environment=os.environ)


def _under(folder: Path, adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The base of an adapter, quantized as the adapter's own manifest says."""
    found = {"model_name_or_path": str(adapter["base_model_name_or_path"])}
    if adapter.get("revision") and not Path(found["model_name_or_path"]).exists():
        found["revision"] = str(adapter["revision"])
    manifest = folder / "manifest.json"
    if manifest.is_file():
        found["quantization"] = json.loads(manifest.read_text(encoding="utf-8")).get("quantization", "none")
    return found


def _made(recipe: Recipe, arguments: argparse.Namespace) -> tuple[RunLayout, Plan]:
    """The directory that an evaluation's scores go into, which other tasks of the same model may share.

    Raises:
        UsageError: it holds something else.
    """
    layout = RunLayout(Path(arguments.output or recipe.output_dir or f"evals/{recipe.name}"))
    # What is asked may differ from time to time; the plan says only who is asked.
    kept = {name: getattr(recipe.evaluate, name) for name in ("adapter", "predictor", "predictor_options")}
    plan = plan_scoring(recipe.model_copy(update={"evaluate": Evaluate(**kept)}), offline=arguments.offline)
    if layout.plan.is_file():
        before = read_plan(layout.plan)
        if before.fingerprint != plan.fingerprint:
            raise UsageError(f"{layout.root} holds scores of another model; give --output ANOTHER")
        return layout, plan
    if layout.root.exists() and (not layout.root.is_dir() or any(layout.root.iterdir())):
        raise UsageError(f"{layout.root} is not empty, and holds no scores; give --output ANOTHER")
    written = plan.recipe.model_dump(mode="json", exclude_defaults=True)
    write_text(layout.recipe, json.dumps({"version": 1, **written}, indent=1) + "\n")
    write_text(
        layout.plan, plan.model_copy(update={"versions": versions()}).model_dump_json(indent=1) + "\n"
    )
    return layout, plan


def table(layout: RunLayout) -> str:
    """The last score of every task and metric, one column an arm, with the standard error over items."""
    found = measurements(layout)
    arms = [arm for arm in ("base", "tuned") if any(m.arm == arm for m in found.values())]
    keys = list(dict.fromkeys((m.suite, m.metric) for m in found.values() if m.arm in arms))
    width = max([len(suite) for suite, _ in keys] + [5])
    head = "".join(f"{arm:>20}" for arm in arms)
    lines = [str(layout.root), f"  {'task':<{width}}  {'metric':<16}{head}   items"]
    for suite, metric in keys:
        cells = [found.get((suite, metric, arm)) for arm in arms]
        shown = "".join(f"{_cell(one):>20}" for one in cells)
        items = next(one.n for one in cells if one is not None)
        lines.append(f"  {suite:<{width}}  {metric:<16}{shown}   {items:,}")
    return "\n".join(lines)


def _cell(one: Measurement | None) -> str:
    if one is None:
        return "-"
    return f"{one.value:.4f}" + ("" if one.stderr is None else f" +-{one.stderr:.4f}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str, option: str) -> list[int]:
    found = _listed(text)
    if not found or not all(part.isdecimal() for part in found):
        raise UsageError(f"{option}: {text!r} is no list of whole numbers, such as 0,5")
    return [int(part) for part in found]
