"""Results of several adapters, one for each task: which files they may have, and how each is loaded.

Each adapter lies in a folder of its own, in PEFT's layout, under the head that all tasks share.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tlscale.planning.types import SHARED_ADAPTER, Plan, Tasks
from tlscale.publish.content import Base
from tlscale.publish.markdown import block, code, count, table

KIND = "adapters"
INSIDE = ("adapter_config.json", "adapter_model.safetensors")
FOLDER = re.compile(rf"{SHARED_ADAPTER}|task_[a-z0-9][a-z0-9_-]{{0,80}}")
MOST = 64


def nested(names: Iterable[str]) -> tuple[str, ...]:
    """Of relative paths, those of an adapter's file in a folder of such a name; of 64 folders at most."""
    parts = [(name, *name.partition("/")[::2]) for name in sorted(names)]
    known = [(name, top) for name, top, rest in parts if rest in INSIDE and FOLDER.fullmatch(top)]
    kept = set(sorted({top for _, top in known})[:MOST])
    return tuple(name for name, top in known if top in kept)


def below(folder: Path) -> dict[str, Path]:
    """The plain files of the adapters in `folder`, by their relative paths."""
    tops = (top for top in folder.iterdir() if top.is_dir() and not top.is_symlink())
    files = (path for top in tops for path in top.iterdir() if path.is_file() and not path.is_symlink())
    found = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: found[name] for name in nested(found)}


def problems(folder: Path, manifest: Mapping[str, Any] | None) -> Iterator[str]:
    """What is wrong with the folders inside `folder`, and with what the manifest says of them."""
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
    told = manifest or {}
    if told.get("kind") != KIND:
        if inside:
            yield f"{inside[0]}: a folder, and only several adapters have such"
        return
    names, tasks = told.get("adapters"), told.get("tasks")
    if "attention" in told or not isinstance(names, list) or not _are_folders(names):
        yield "manifest.json: adapters must be names of folders, one for each task"
        return
    if not isinstance(tasks, list) or [f"task_{name}" for name in _names(tasks)] != [
        name for name in names if name != SHARED_ADAPTER
    ]:
        yield "manifest.json: tasks must be pairs of a name and how many classes it has, one an adapter"
    if inside != sorted(names):
        there = ", ".join(inside) or "none"
        yield f"manifest.json: names the adapters {', '.join(names)}, and there are {there}"
    strange = {p.relative_to(folder).as_posix() for top in inside for p in (folder / top).iterdir()}
    for name in sorted(strange - set(below(folder))):
        yield f"{name}: does not belong here"


def _are_folders(names: list[Any]) -> bool:
    return 0 < len(names) <= MOST and all(isinstance(n, str) and FOLDER.fullmatch(n) for n in names)


def _names(tasks: list[Any]) -> list[Any]:
    """The names of well-formed tasks; none where one is not."""
    pairs = all(isinstance(one, list) and len(one) == 2 for one in tasks)
    sound = pairs and all(isinstance(name, str) and type(size) is int and size > 0 for name, size in tasks)
    return [one[0] for one in tasks] if sound else []


def tasks_of(plan: Plan) -> Tasks:
    """The tasks of a plan whose result has several adapters."""
    found = plan.stages[-1].stage.tasks
    assert found is not None, "only several tasks have several adapters"
    return found


def loading(repository: str, plan: Plan, base: Base) -> str:
    """Which adapters belong to which task, how plain PEFT loads them, and what the head makes of them."""
    tasks = tasks_of(plan)
    rows, first = [], 0
    for name, classes in tasks.sizes:
        active = [one for one in tasks.adapter_names if one in (SHARED_ADAPTER, f"task_{name}")]
        span = f"{first} to {first + classes - 1}"
        rows.append((code(name), count(classes), ", ".join(code(one) for one in active), span))
        first += classes
    one, *others = tasks.adapter_names
    loads = [
        f"model.load_adapter({repository!r}, subfolder={name!r}, adapter_name={name!r})" for name in others
    ]
    chosen = [n for n in tasks.adapter_names if n in (SHARED_ADAPTER, f"task_{tasks.sizes[0][0]}")]
    lines = (
        "from peft import PeftModel",
        "from transformers import AutoModel",
        "",
        f"base = AutoModel.from_pretrained({base.name!r}, revision={base.commit!r})",
        "model = PeftModel.from_pretrained(",
        f"    base, {repository!r}, subfolder={one!r}, adapter_name={one!r}",
        ")",
        *loads,
        f"model.base_model.set_adapter({chosen!r})",
    )
    head = (
        "The head, in `head.safetensors`, is tlscale's own: its `output` is applied to the model's pooled "
        "states (as `head.json` says), and a task's answer is among its own rows. All of it is loaded and "
        "checked by"
    )
    parts = (
        table(("task", "classes", "adapters to switch on", "rows of the head's output"), rows),
        f"Each adapter loads in plain PEFT; those of {code(tasks.sizes[0][0])} are switched on here:",
        block("\n".join(lines), "python"),
        head,
        block(f"tlscale verify hub:{repository}", "sh"),
    )
    return "\n\n".join(parts)
