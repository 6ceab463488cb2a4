"""`tlscale tasks`: which evaluation tasks there are, and what one of them asks."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tlscale import plugins
from tlscale.errors import ExitCode, TlscaleError, UsageError
from tlscale.evaluation.requests import Choices, Generation, Likelihood, Request, Rolling
from tlscale.evaluation.tasks.find import GROUP, find
from tlscale.evaluation.tasks.prepare import Setting, prepare
from tlscale.evaluation.tasks.task import Task

LONGEST = 1500


@dataclass(frozen=True)
class Listed:
    """One line of the list; `kind` is `broken` for a plugin that can't be loaded."""

    name: str
    kind: str
    metrics: tuple[str, ...]
    summary: str


def show_tasks(arguments: argparse.Namespace) -> int:
    """Lists all tasks, or shows the named ones with an example as a model gets it."""
    if not arguments.names:
        return _list(arguments)
    if not arguments.shots.isdecimal():
        raise UsageError(f"--shots: {arguments.shots!r} is no whole number")
    folder = arguments.data_dir or os.environ.get("TLSCALE_DATA")
    shown = [
        _shown(find(name), int(arguments.shots), None if folder is None else Path(folder))
        for name in arguments.names
    ]
    print(json.dumps(shown, ensure_ascii=False) if arguments.json else "\n\n".join(map(_text, shown)))
    return int(ExitCode.OK)


def _list(arguments: argparse.Namespace) -> int:
    found = [_listed(name) for name in plugins.names(GROUP)]
    if arguments.json:
        print(json.dumps([vars(one) for one in found]))
        return int(ExitCode.OK)
    for one in found:
        print(f"{one.name:<16} {one.kind:<15} {', '.join(one.metrics):<36} {one.summary}")
    print("\nNext: tlscale tasks TASK    tlscale eval MODEL_OR_RUN --tasks TASK,TASK --shots 0,5")
    return int(ExitCode.OK)


def _listed(name: str) -> Listed:
    try:
        task = find(name)
    except TlscaleError as error:
        return Listed(name, "broken", (), str(error))
    return Listed(name, task.kind, task.metrics, task.summary)


def _shown(task: Task, shots: int, folder: Path | None) -> dict[str, object]:
    """A task with its first item, as it goes to a language model."""
    about: dict[str, object] = {
        "name": task.name, "kind": task.kind, "metrics": task.metrics, "summary": task.summary,
    }  # fmt: skip
    prepared = prepare(task, Setting(shots=shots, folder=folder))
    item = prepared.items[0]
    return {
        **about,
        "items": prepared.scored,
        "examples_from": len(prepared.train),
        "labels": len(prepared.labels),
        "where": item.document.where,
        "right": _right(prepared.items[0].document.answer),
        "requests": [_request(request) for request in item.requests],
    }


def _right(answer: int | str | None) -> str:
    return "" if answer is None else str(answer)


def _request(request: Request) -> dict[str, object]:
    if isinstance(request, Choices):
        return {"context": request.context, "options": list(request.options)}
    if isinstance(request, Likelihood):
        return {"context": request.context, "options": [request.continuation]}
    if isinstance(request, Generation):
        stop = list(request.stop)
        return {"context": request.context, "stop": stop, "max_new_tokens": request.max_new_tokens}
    assert isinstance(request, Rolling)
    return {"text": request.text}


def _text(shown: dict[str, object]) -> str:
    head = f"{shown['name']}: {shown['summary']}"
    counts = f"{shown['kind']}, {shown['items']:,} items"
    if shown["labels"]:
        counts += f", {shown['labels']} labels"
    metrics = shown["metrics"]
    assert isinstance(metrics, tuple)
    lines = [head, f"  {counts}; {', '.join(metrics)}", f"  {shown['where']}, right: {shown['right']}"]
    requests = shown["requests"]
    assert isinstance(requests, list)
    for request in requests:
        for name, content in request.items():
            parts = content if isinstance(content, list) else [content]
            lines += [f"  {name:<8} {_cut(str(part))!r}" for part in parts[:10]]
            if len(parts) > 10:
                lines.append(f"  {'':<8} and {len(parts) - 10} more")
    return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"
