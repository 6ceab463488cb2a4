"""The Python API: what is imported when, what it takes, and what it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tlscale
from tlscale.api import Plan, Recipe, Run, evaluate, plan
from tlscale.errors import ExitCode, RecipeError, UsageError
from tlscale.launching.local import Command, WorkerFailed, lines
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import write_json, write_lines

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def loaded(program: str) -> set[str]:
    """The modules of a fresh process after `program`."""
    code = f"import json, sys\n{program}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing() -> None:
    found = loaded("import tlscale; tlscale.__version__; dir(tlscale)")
    assert not found & {"pydantic", "yaml", "numpy", "torch", "rich"}
    assert not [name for name in found if name.startswith("tlscale.")]


@pytest.mark.parametrize(
    "first",
    ["", "import tlscale.planning.compile", "from tlscale.planning import types", "import tlscale.api"],
)
def test_the_names_are_there_whatever_was_imported_before(first: str) -> None:
    found = loaded(
        f"{first}\nfrom tlscale import Recipe, plan, run, evaluate\n"
        f"made = plan({str(QUICKSTART)!r}, 'seed=3')\nassert made.seed == 3, made\n"
        "assert isinstance(made.recipe, Recipe)\n"
        "import tlscale.planning.compile as made_by\n"
        "assert made_by.compile_plan(made.recipe).fingerprint == made.fingerprint"
    )
    assert not found & {"torch", "transformers", "numpy"}


def test_there_are_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'pln'"):
        _ = tlscale.pln  # type: ignore[attr-defined]
    assert {"Recipe", "plan", "run", "evaluate"} <= set(dir(tlscale))


def raw(**more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "x",
        "model": {"model_name_or_path": "builtin:pico", "task": "causal-lm"},
        "data": {"train": {"path": "builtin:code-train.jsonl", "text": "text"}},
        "strategy": {"kind": "full"},
        "hardware": {"device": "cpu"},
        **more,
    }


def test_a_recipe_a_mapping_and_a_file_give_the_same_plan(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(raw()))
    made = [plan(given, "train.max_steps=7") for given in (Recipe(**raw()), raw(), file, str(file))]
    assert len({one.fingerprint for one in made}) == 1
    assert made[0].stages[0].steps == 7
    assert made[0].fingerprint != plan(raw()).fingerprint
    with pytest.raises(RecipeError, match="did you mean max_steps"):
        plan(raw(), "train.max_step=7")


def test_a_plan_shows_itself() -> None:
    made = plan(raw(name="a"), "train.max_steps=7")
    assert isinstance(made, Plan)
    assert repr(made).startswith(f"<Plan {made.fingerprint} of a: builtin:pico, train: native, trains ")
    assert "memory per device (estimate)" in str(made)
    assert "<td>7</td>" in made._repr_html_()
    evil = made.model_copy(update={"notes": ("<script>alert(1)</script>",)})
    assert "<script>" not in evil._repr_html_()
    assert "&lt;script&gt;" in evil._repr_html_()
    nothing = plan(raw(strategy={"kind": "none"}))
    assert "the base is scored as it is" in nothing._repr_html_()


def measured(arm: str, value: float, metric: str = "nll") -> dict[str, Any]:
    return {
        "suite": "target", "arm": arm, "metric": metric, "value": value, "stderr": None, "n": 20,
        "predictor": "likelihood", "stage": None, "outcomes": "x",
    }  # fmt: skip


def finished(root: Path, base: float, tuned: float) -> RunLayout:
    layout = RunLayout(root)
    layout.root.mkdir(parents=True)
    layout.plan.write_text(plan(raw()).model_dump_json())
    write_lines(
        layout.measurements, [measured("tuned", 9.0), measured("base", base), measured("tuned", tuned)]
    )
    layout.done.write_text("x")
    return layout


def test_a_run_is_read_from_its_files(tmp_path: Path) -> None:
    layout = finished(tmp_path / "<run>", 3.0, 2.5)
    opened = Run.open(layout.root)
    assert opened.done
    assert opened.plan.recipe.name == "x"
    assert [(m.arm, m.value) for m in opened.measurements] == [("tuned", 2.5), ("base", 3.0)]
    assert opened.verdict is None
    assert repr(opened) == f"Run({str(layout.root)!r}: not judged)"
    shown = opened._repr_html_()
    assert "<td>3.0000</td><td>2.5000</td><td>-0.5000</td><td>20</td>" in shown
    assert "&lt;run&gt;" in shown
    assert "<run>" not in shown
    layout.done.unlink()
    assert "unfinished" in repr(opened)


def test_a_verdict_is_read_and_its_reasons_shown(tmp_path: Path) -> None:
    layout = finished(tmp_path / "run", 3.0, 2.5)
    write_json(layout.verdict, {
        "version": 1, "run": "x", "word": "INCONCLUSIVE", "smoke": True, "claims": [], "arms": [],
        "missing_arms": [], "cost": {}, "reasons": ["one <seed> only"], "fingerprints": {},
    })  # fmt: skip
    opened = Run.open(layout.root)
    assert opened.verdict is not None
    assert repr(opened).endswith("INCONCLUSIVE, a smoke result)")
    assert "one &lt;seed&gt; only" in opened._repr_html_()


def test_seeds_are_one_run_with_means(tmp_path: Path) -> None:
    for seed, tuned in ((0, 2.0), (1, 3.0), (10, 4.0)):
        finished(tmp_path / f"seed-{seed}", 5.0, tuned)
    opened = Run.open(tmp_path)
    assert [layout.root.name for layout in opened.layouts] == ["seed-0", "seed-1", "seed-10"]
    assert "<td>5.0000</td><td>3.0000</td><td>-2.0000</td>" in opened._repr_html_()
    assert "3 seeds" in opened._repr_html_()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        Run.open(tmp_path)
    with pytest.raises(UsageError, match="not a run directory"):
        evaluate(tmp_path / "nowhere")


def test_tasks_need_a_model_and_settings_need_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="a/b/c: no such folder"):
        evaluate("a/b/c", ["hellaswag"])
    with pytest.raises(RecipeError) as refused:
        evaluate("builtin:pico", ["hellaswag"], "evaluate.shot_selection=nearst")
    assert "nearest" in str(refused.value)
    with pytest.raises(UsageError, match="these settings go with tasks"):
        evaluate(tmp_path, limit=3)
    assert not list(tmp_path.iterdir())


def python(code: str) -> Command:
    return Command((sys.executable, "-c", code), {"GIVEN": "1"})


def test_lines_come_as_they_are_said_and_failures_with_their_reason() -> None:
    program = "import sys, os\nfor line in sys.stdin: print(os.environ['GIVEN'] + line.upper(), end='')"
    assert list(lines(python(program), given="a\nb\n")) == ["1A", "1B"]
    failing = lines(python("import sys; print('one'); sys.stderr.write('bad rows'); sys.exit(2)"))
    assert next(failing) == "one"
    with pytest.raises(WorkerFailed, match="bad rows") as stopped:
        next(failing)
    assert stopped.value.exit_code == ExitCode.USAGE
    with pytest.raises(WorkerFailed, match="ended with code 77") as stopped:
        list(lines(python("import sys; sys.exit(77)")))
    assert stopped.value.exit_code == ExitCode.RUN_FAILED
