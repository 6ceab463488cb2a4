"""Many stages in one group of processes: `accelerate launch -m tests.distributed.driver CASES OUT`.

Starting processes costs far more than a small stage, so all cases of a test share one start. CASES is a
JSON list of recipes; for each, OUT/NAME is its run directory, and OUT/results.jsonl gets its losses and
what verification found.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch import nn

from tlscale.engine import runtime as runtimes
from tlscale.errors import PlanError
from tlscale.planning.compile import compile_plan
from tlscale.recipe.types import Recipe
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, read_lines
from tlscale.worker.__main__ import _quiet
from tlscale.worker.run import _fresh_base, _start
from tlscale.worker.stages import run_stage


def main(cases: Path, out: Path) -> None:
    _quiet()
    runtimes.ready_to_compile()  # the first case may be another backend's
    runtime: runtimes.Runtime | None = None
    for written in json.loads(cases.read_text()):
        try:
            plan = compile_plan(Recipe.model_validate_json(json.dumps(written)))
        except PlanError as error:
            found: dict[str, Any] = {"error": str(error)}
        else:
            runtime = runtime or runtimes.start(plan, out / "trackers")
            runtime = replace(runtime, planned=plan.world)
            layout = RunLayout(out / plan.recipe.name)
            job, _ = _start(plan, layout, runtime)
            set_seed(plan.seed)
            module: nn.Module | None = _fresh_base(plan)
            for at, planned in enumerate(plan.stages):
                module = run_stage(job, planned, module if at == 0 else None)
            pages = [] if module is None else runtime.collect([mapped(module)])
            found = {"losses": losses(layout), "verified": verified(layout), "mapped": pages}
            found["terms"] = [term.name for planned in plan.stages for term in planned.stage.objective]
        if os.environ.get("RANK", "0") == "0":
            append_line(out / "results.jsonl", {"name": written["name"], **found})


def losses(layout: RunLayout) -> list[float]:
    return [row["loss"] for row in read_lines(layout.events) if row["event"] == "step"]


def verified(layout: RunLayout) -> dict[str, Any]:
    found = [row for row in read_lines(layout.events) if row["event"] == "verified"]
    return found[-1] if found else {}


def mapped(module: nn.Module) -> dict[str, int]:
    """How many of the frozen weights lie in the mapped file, and how much of it was written to, in bytes.

    A page of a file that is written to is copied for the process that writes.
    """
    places, written, inside = [], 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            inside = words[-1].endswith(".safetensors")
            start, end = (int(part, 16) for part in words[0].split("-"))
            places += [range(start, end)] if inside else []
        elif inside and words[0] == "Anonymous:":
            written += int(words[1]) * 1024
    frozen = [p.data_ptr() for p in module.parameters() if not p.requires_grad]
    return {
        "frozen": len(frozen),
        "mapped": sum(any(at in place for place in places) for at in frozen),
        "written": written,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
