"""Tasks of lm-evaluation-harness by name, answered by our scorer: its prompts, its metrics, its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

from tlscale.errors import DataError, TlscaleError, UsageError, unknown
from tlscale.evaluation.harness.model import HarnessModel
from tlscale.evaluation.scoring.scorer import ModelScorer

PREFIX = "lm_eval:"


@dataclass(frozen=True)
class Sample:
    """One document of a task: its place, what the metrics gave it, and the answers they were made of."""

    item: int
    metrics: Mapping[str, float]
    answers: tuple[Any, ...]
    target: str


@dataclass(frozen=True)
class Scored:
    """One task's metrics as (value, standard error or None), and every document."""

    task: str
    metrics: Mapping[str, tuple[float, float | None]]
    samples: tuple[Sample, ...]


def evaluate(
    name: str, scorer: ModelScorer, *, shots: int | None = None, limit: int | None = None
) -> tuple[Scored, ...]:
    """Scores the task, or each task of the group, that `name` stands for.

    Args:
        name: As the harness knows it, or FOLDER/NAME for a definition in a folder of one's own
            (its own tasks are then not looked through).
        scorer: With several processes, each of them must call this.
        shots: Examples before each document; None for the task's own number.
        limit: Only the first documents.

    Raises:
        UsageError: the harness has no such task.
        DataError: its data can't be had.
        TlscaleError: its code fails.
    """
    manager, task = _manager(name)
    try:
        found: Any = lm_eval.simple_evaluate(
            model=HarnessModel(scorer=scorer),
            tasks=[task],
            num_fewshot=shots,
            limit=limit,
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=True,
        )
    except (OSError, ConnectionError) as error:
        raise DataError(f"{PREFIX}{name}: its data can't be had: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, TlscaleError):
            raise
        raise TlscaleError(f"{PREFIX}{name}: the task fails: {type(error).__name__}: {error}") from error
    # The harness gives results to the first process of each machine alone.
    own = [] if found is None else [tuple(_scored(one, found) for one in sorted(found["samples"]))]
    every: list[tuple[Scored, ...]] = scorer.share.collect(own)
    return every[0]


def names() -> tuple[str, ...]:
    """Every task and group that the harness knows."""
    return tuple(sorted(TaskManager().all_tasks))


def _manager(name: str) -> tuple[TaskManager, str]:
    folder, _, task = name.rpartition("/")
    if folder and not Path(folder).is_dir():
        raise UsageError(f"{PREFIX}{name}: no folder {folder}; give {PREFIX}NAME or {PREFIX}FOLDER/NAME")
    manager = TaskManager(include_path=folder or None, include_defaults=not folder)
    if task not in manager.all_tasks:
        raise UsageError(f"{PREFIX}{name}: {unknown(task, manager.all_tasks, 'task')}")
    return manager, task


def _scored(task: str, found: Mapping[str, Any]) -> Scored:
    results = found["results"][task]
    metrics = {}
    for key, value in results.items():
        metric, _, rest = key.partition(",")
        if rest and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = results.get(f"{metric}_stderr,{rest}")
            label = metric if rest == "none" else f"{metric}-{rest}"
            metrics[label] = (float(value), float(error) if isinstance(error, int | float) else None)
    samples = tuple(
        Sample(
            item=int(row["doc_id"]),
            metrics={m: float(row[m]) for m in row["metrics"] if isinstance(row.get(m), int | float)},
            answers=tuple(row["filtered_resps"]),
            target=str(row["target"]),
        )
        for row in found["samples"][task]
    )
    return Scored(task, metrics, samples)
