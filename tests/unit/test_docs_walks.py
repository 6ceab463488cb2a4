"""The walks in docs/ do what they say, and the reference is what the schema says."""

from __future__ import annotations

import io
import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState, PartialState

from tests.unit import test_strategies_contract as contract
from tests.unit.facts import LABELS, llama
from tlscale import api, plugins
from tlscale.errors import PlanError, RecipeError
from tlscale.launching.local import Command
from tlscale.recipe.load import check
from tlscale.worker import __main__ as worker

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The strategy of the walk, installed as a package of its own would be."""
    (code,) = blocks("add-a-strategy.md")
    (tmp_path / "biases.py").write_text(code)
    about = tmp_path / "biases-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: biases\nVersion: 1.0\n")
    (target,) = re.findall(r'^    biases = "(.*)"$', (DOCS / "add-a-strategy.md").read_text(), re.MULTILINE)
    (about / "entry_points.txt").write_text(f"[tlscale.strategies]\nbiases = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins._targets.cache_clear()
    yield
    plugins._targets.cache_clear()
    sys.modules.pop("biases", None)


@pytest.mark.usefixtures("biases")
@pytest.mark.parametrize("labels", [(), LABELS], ids=["lm", "classes"])
def test_the_strategy_of_the_walk_keeps_the_contract(labels: tuple[str, ...]) -> None:
    for variant in plugins.load("tlscale.strategies", "biases").variants():
        contract.keeps_the_contract("biases", variant, labels)
    trained = contract.trained("biases", {}, llama(labels=labels))
    assert {name for name in trained if "norm" not in name} == (
        {"head.score.weight"} if labels else {"head.lm_head.weight"} & trained
    )
    assert "layers.0.input_layernorm.weight" in trained
    with pytest.raises(PlanError, match=r"has no biases; set strategy\.norms=true"):
        contract.compiled("biases", {"norms": False}, llama(labels=labels))


@pytest.mark.usefixtures("biases")
def test_its_options_are_checked_like_any() -> None:
    raw = {
        "version": 1,
        "name": "x",
        "model": {"model_name_or_path": "m", "task": "causal-lm"},
        "strategy": {"kind": "biases", "lr_scal": 2.0},
    }
    with pytest.raises(RecipeError, match="did you mean lr_scale"):
        check(raw, source="x")


def inside(command: Command, *, given: str = "") -> Iterator[str]:
    """The worker's `lines` without a process of its own, which would import torch once more."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    said, wrong, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(given)
    try:
        with redirect_stdout(said), redirect_stderr(wrong):
            code = worker.main(list(command.argv[command.argv.index("tlscale.worker") + 1 :]))
    finally:
        sys.stdin = before
    assert code == 0, wrong.getvalue()
    yield from said.getvalue().splitlines()


def test_the_python_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "lines", inside)
    names: dict[str, object] = {}
    for block in blocks("python.md"):
        exec(compile(block, "python.md", "exec"), names)
    finished, answers = names["finished"], names["answers"]
    assert isinstance(finished, api.Run)
    assert finished.done
    assert finished.verdict is not None
    assert (finished.path / "report.html").is_file()
    assert {m.arm for m in finished.measurements} == {"base", "tuned"}
    assert isinstance(answers, list)
    assert [set(answer) for answer in answers] == [{"completion"}, {"completion"}]
    assert "<table>" in finished._repr_html_()


def test_the_reference_is_up_to_date() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "reference.py"))
    made = tool["page"](tool["recipe_schema"]())
    assert tool["PAGE"].read_text(encoding="utf-8") == made, "run: python tools/reference.py"
    for key in ("`model_name_or_path`", "`use_rslora`", "`last_layers`", "### `kind: peft, method: lora`"):
        assert key in made
