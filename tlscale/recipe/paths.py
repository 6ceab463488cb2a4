"""Paths in recipes: `${NAME}` from the environment, `builtin:NAME` from the package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tlscale.errors import Problem, UsageError, nearest
from tlscale.runs.layout import RunLayout

ASSETS = Path(__file__).parents[1] / "assets"
BUILTIN = "builtin:"
_LISTED = 12
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_PATH_KEYS = {"model_name_or_path", "path", "chat_template", "output_dir", "data_dir", "adapter"}
_PATH_LISTS = {"against_runs", "adapters"}


def resolve(path: str) -> Path:
    """The file or folder that a recipe's `path` names. It need not exist.

    Raises:
        UsageError: `builtin:` with anything but the plain name of a file in the package.
    """
    if not path.startswith(BUILTIN):
        return Path(path).expanduser()
    name = PurePosixPath(path.removeprefix(BUILTIN))
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise UsageError(f"{path}: builtin: takes the plain name of a file in the package")
    return ASSETS / name


def expand(raw: Any, environment: Mapping[str, str], at: tuple[str, ...] = ()) -> tuple[Any, list[Problem]]:
    """`raw` with `${NAME}` replaced in values that are paths; secrets and unset names are problems."""
    problems: list[Problem] = []
    if isinstance(raw, dict):
        result: Any = {}
        for key, value in raw.items():
            result[key], more = expand(value, environment, (*at, str(key)))
            problems += more
        return result, problems
    if isinstance(raw, list):
        pairs = [expand(value, environment, (*at, str(i))) for i, value in enumerate(raw)]
        return [value for value, _ in pairs], [p for _, more in pairs for p in more]
    if not isinstance(raw, str) or not (
        _PATH_KEYS.intersection(at[-1:]) or _PATH_LISTS.intersection(at[-2:])
    ):
        return raw, problems

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if _SECRET.search(name):
            problems.append(
                Problem(".".join(at), raw, f"{name} looks like a secret; secrets don't go into paths")
            )
        elif name not in environment:
            problems.append(Problem(".".join(at), raw, f"the environment variable {name} is not set"))
        else:
            return environment[name]
        return match[0]

    return _VARIABLE.sub(replace, raw), problems


def missing_file(path: str) -> str | None:
    """What to say of a path that doesn't exist; `None` if it does."""
    try:
        place = resolve(path)
    except UsageError as error:
        return str(error)
    return None if place.exists() else absence(place)


def absence(path: Path) -> str:
    """Why there is nothing at `path`, with the names beside it."""
    folder = path.parent
    if not folder.is_dir():
        while not folder.parent.is_dir():
            folder = folder.parent
        path, folder = folder, folder.parent
        problem = f"no such folder {path.name!r}"
    else:
        problem = "no such file"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = nearest(path.name, names)
    hint = f"; did you mean {near}?" if near is not None else ""
    more = f", ... ({len(names)} in all)" if len(names) > _LISTED else ""
    return f"{problem}{hint}; in that folder: {', '.join(names[:_LISTED]) or 'nothing'}{more}"


def _no_run(folder: Path) -> str | None:
    roots = [folder, *sorted(folder.glob("seed-*"))]
    if any(RunLayout(root).measurements.is_file() for root in roots):
        return None
    return "no run that was scored is there; give the output_dir of a finished one"


def file_problems(raw: Any, at: tuple[str, ...] = ()) -> list[Problem]:
    """Every `path` and `chat_template` under `raw` that names a file that isn't there, and every run."""
    if isinstance(raw, list):
        return [p for i, value in enumerate(raw) for p in file_problems(value, (*at, str(i)))]
    if isinstance(raw, str) and _PATH_LISTS.intersection(at[-2:]) and "${" not in raw:
        said = missing_file(raw) or _no_run(Path(raw).expanduser())
        return [Problem(".".join(at), raw, said)] if said else []
    if not isinstance(raw, dict):
        return []
    problems = []
    for key, value in raw.items():
        if key in ("path", "chat_template") and isinstance(value, str) and "${" not in value:
            said = missing_file(value)
            if said:
                problems.append(Problem(".".join((*at, key)), value, said))
        else:
            problems += file_problems(value, (*at, str(key)))
    return problems
