"""Tasks by name: a plugin's, a YAML file's, or a part of them by pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from tlscale import plugins
from tlscale.errors import TlscaleError
from tlscale.evaluation.tasks import written
from tlscale.evaluation.tasks.task import Task

GROUP = "tlscale.tasks"


def expanded(names: Sequence[str]) -> tuple[str, ...]:
    """`names` with patterns such as `mmlu_*` replaced by what they match, each once."""
    found: dict[str, None] = {}
    for name in names:
        matches = fnmatch.filter(plugins.names(GROUP), name) if "*" in name and ":" not in name else []
        found |= dict.fromkeys(matches or [name])
    return tuple(found)


def find(name: str) -> Task:
    """The task called `name`, or in the YAML file `name`.

    Raises:
        UsageError: there is none; the nearest name is suggested.
        TlscaleError: it is there, but can't be loaded, or is no task.
    """
    if written.is_file_name(name):
        return written.read(name)
    task = plugins.load(GROUP, name)
    if not isinstance(task, Task):
        raise TlscaleError(f"plugin {name} of group {GROUP} is a {type(task).__name__}, not a Task")
    return task
