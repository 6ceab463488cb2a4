"""A login node without torch: a Python that has what reads recipes, and nothing that trains."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection", "yaml")
RECIPE = {
    "version": 1,
    "name": "first",
    "model": {"model_name_or_path": "builtin:pico", "task": "causal-lm"},
    "data": {"train": {"path": "builtin:code-train.jsonl", "text": "text"}, "max_length": 64},
    "strategy": {"kind": "peft", "method": "lora", "r": 4, "target_modules": "all-linear"},
    "train": {"learning_rate": 1e-3, "max_steps": 200, "train_batch_size": 32},
}
PROGRAM = (
    "import importlib.util, sys\n"
    "assert importlib.util.find_spec('torch') is None and importlib.util.find_spec('numpy') is None\n"
    "from tlscale.cli import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


def packages(site: Path) -> None:
    """Makes a folder of packages, without torch or anything else that is installed here."""
    site.mkdir()
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        file = Path(spec.origin)
        found = file.parent if file.name == "__init__.py" else file
        (site / found.name).symlink_to(found)


@pytest.fixture
def login(tmp_path: Path) -> Path:
    """A user's folder on such a machine, with a recipe in it."""
    packages(tmp_path / "site")
    (tmp_path / "first.yaml").write_text(json.dumps(RECIPE))
    return tmp_path


def tlscale(login: Path, *arguments: str, **more: str) -> str:
    """The output of a command on the login node; `more` are variables."""
    path = f"{ROOT}:{login / 'site'}"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": str(login), **more}
    done = subprocess.run(
        [os.path.realpath(sys.executable), "-S", "-c", PROGRAM, *arguments],
        cwd=login, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_job_is_rendered_where_torch_is_not(login: Path) -> None:
    words = ("launch.slurm.gpu_memory=80", "--nodes", "4", "--gpus-per-node", "8", "--time", "12:00:00")
    said = tlscale(
        login, "submit", "first.yaml", *words, "--partition", "gpu", "--dry-run", "--", "--nice=5"
    )
    for line in ("--nodes=4", "--gpus-per-node=8", "--time=0-12:00:00", "--partition=gpu", "--requeue"):
        assert f"#SBATCH {line}\n" in said
    assert "sbatch --parsable --output=" in said
    assert " --nice=5 " in said
    assert "--dependency=afterok:JOB_TRAIN --kill-on-invalid-dep=yes" in said
    assert sorted(file.name for file in login.iterdir()) == ["first.yaml", "site"]


def test_scripts_are_looked_through_where_torch_is_not(login: Path) -> None:
    found = json.loads(tlscale(login, "lint", str(ROOT / "launch" / "one-machine.sbatch"), "--json"))
    assert list(found.values()) == [[]]
