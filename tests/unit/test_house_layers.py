"""Which rooms are free of torch: said in pyproject.toml, complete, and true of a fresh process."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tlscale

ROOT = Path(__file__).parents[2]
TORCH_ROOMS = {"data", "engine", "evaluation", "models", "outer", "probes", "worker"}
HEAVY = {
    "accelerate",
    "bitsandbytes",
    "datasets",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "torch",
    "transformers",
}
# cli and api hand the environment to the recipe, for ${NAME} in paths.
ENVIRONMENT_READERS = ("tlscale/api.py", "tlscale/cli/", "tlscale/engine/runtime.py", "tlscale/launching/")


def contracts() -> dict[str, dict[str, list[str]]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


def torch_free() -> list[str]:
    return contracts()["torch-free"]["source_modules"]


def rooms() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(tlscale.__path__)}


def test_every_room_is_on_one_side_of_the_line() -> None:
    free = {name.split(".")[1] for name in torch_free() if name.count(".") == 1}
    assert not free & TORCH_ROOMS
    undecided = rooms() - free - TORCH_ROOMS - {"__main__"}
    assert not undecided, f"name {sorted(undecided)} in the contracts of pyproject.toml or in TORCH_ROOMS"


def test_sources_alone_may_read_arrays() -> None:
    assert set(torch_free()) - set(contracts()["array-free"]["source_modules"]) == {"tlscale.sources"}


def test_no_contract_has_an_exception() -> None:
    assert not [name for name, contract in contracts().items() if "ignore_imports" in contract]


def modules_under(name: str) -> list[str]:
    """`name` and everything in it, except what starts a program when it is imported."""
    path = ROOT.joinpath(*name.split("."))
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    dotted = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in found]
    return [module.removesuffix(".__init__") for module in dotted if not module.endswith("__main__")]


@pytest.mark.parametrize("room", torch_free())
def test_importing_a_torch_free_room_loads_nothing_heavy(room: str) -> None:
    if room.count(".") == 1 and room.split(".")[1] not in rooms():
        pytest.fail(f"{room} is named in pyproject.toml, but isn't there")
    program = (
        "import importlib, json, sys\n"
        f"for name in {modules_under(room)!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(json.loads(done.stdout))


def reads_environment(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return bool(names & {"environ", "getenv"})


def test_the_environment_is_read_in_four_rooms_only() -> None:
    files = [path for path in (ROOT / "tlscale").rglob("*.py") if reads_environment(path)]
    readers = [path.relative_to(ROOT).as_posix() for path in files]
    assert not [reader for reader in readers if not reader.startswith(ENVIRONMENT_READERS)]
