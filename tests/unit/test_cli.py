"""The command line: surface, exit codes, messages, and that answers before a run need no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tlscale.cli import main, parser

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def tlscale(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlscale", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def test_the_surface_is_frozen() -> None:
    actions = next(a for a in parser()._actions if a.dest == "COMMAND" or a.choices)
    assert actions.choices is not None
    assert list(actions.choices) == COMMANDS


COMMANDS = (
    "init check plan run probe "
    "sweep advise "
    "eval tasks verify report compare merge soup predict "
    "audit replay submit prefetch status logs cancel resume lint "
    "push reproduce runs "
    "plugins env schema completion"
).split()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*([command] if command else []), "--help"])
    assert stopped.value.code == 0
    assert "usage: tlscale" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["check", str(QUICKSTART)],
        ["plan", str(QUICKSTART)],
        ["plan", str(QUICKSTART), "--json"],
        ["run", str(QUICKSTART), "--dry-run"],
    ],
    ids=lambda a: a[0] + a[-1][-6:],
)
def test_answers_before_a_run_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from tlscale.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as stop: code = stop.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate', 'numpy', 'datasets'}\n"
        "heavy = sorted(heavy & set(sys.modules))\n"
        "print('heavy:', heavy); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("heavy: []\n")


def test_check_says_all_problems_and_exits_2(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(QUICKSTART.read_text().replace("target_modules", "target_moduls"))
    done = tlscale("check", str(recipe), "train.lerning_rate=1e-3")
    assert done.returncode == 2
    assert "2 problems in" in done.stderr
    assert "did you mean target_modules?" in done.stderr
    assert "did you mean learning_rate? (command line)" in done.stderr
    assert "Nothing was run." in done.stderr
    done = tlscale("check", str(recipe), "--json")
    assert done.returncode == 2
    assert [p["path"] for p in json.loads(done.stdout)["problems"]] == ["strategy.target_moduls"]


def test_plan_as_json_is_the_plan_and_too_little_memory_exits_3() -> None:
    from tlscale.planning.types import Plan

    done = tlscale("plan", str(QUICKSTART), "--json", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    plan = Plan.model_validate_json(done.stdout)
    assert plan.stages[0].trainable > 0
    again = tlscale("plan", str(QUICKSTART), "--json", cwd=ROOT)
    assert Plan.model_validate_json(again.stdout).fingerprint == plan.fingerprint
    done = tlscale("plan", str(QUICKSTART), "hardware.memory_per_device=0.001", cwd=ROOT)
    assert done.returncode == 3
    assert "does not fit" in done.stderr
    assert "largest:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "nowhere.yaml"], 2, "no such file"),
        (["verify", "nowhere"], 2, "not a run directory"),
        (["eval", "nowhere"], 2, "not a run directory"),
        (["init", "text-lara"], 2, "did you mean text-lora?"),
        (["plan", str(QUICKSTART), "model.model_name_or_path=builtin:pica"], 2, "there are: pico"),
    ],
)
def test_what_cannot_be_meant_exits_2(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = tlscale(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_may_stand_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(QUICKSTART), "--json", "train.learning_rate=0.00123"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["stage"]["update"]["learning_rate"] == 0.00123
    for strange in (["--jsno", "train.learning_rate=1"], ["--json", "stray"]):
        with pytest.raises(SystemExit, match="2"):
            main(["plan", str(QUICKSTART), *strange])
        assert "unrecognized arguments" in capsys.readouterr().err


def test_init_writes_once_and_never_over_a_file(tmp_path: Path) -> None:
    assert "text-lora" in tlscale("init", cwd=tmp_path).stdout
    done = tlscale("init", "text-lora", cwd=tmp_path)
    assert done.returncode == 0
    (tmp_path / "train.csv").write_text("text,label\na,b\nc,d\n")
    (tmp_path / "test.csv").write_text("text,label\na,b\nc,d\n")
    assert tlscale("check", "text-lora.yaml", cwd=tmp_path).returncode == 0
    before = (tmp_path / "text-lora.yaml").read_text()
    assert tlscale("init", "text-lora", cwd=tmp_path).returncode == 2
    assert (tmp_path / "text-lora.yaml").read_text() == before


def test_plugins_lists_the_broken_with_their_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tlscale import plugins

    monkeypatch.setitem(plugins.BUILTINS["tlscale.strategies"], "broken", "tlscale.no_such_module:X")
    plugins._targets.cache_clear()
    try:
        assert main(["plugins", "--json"]) == 0
    finally:
        plugins._targets.cache_clear()
    rows = {(r["group"], r["name"]): r["error"] for r in json.loads(capsys.readouterr().out)}
    assert rows["tlscale.strategies", "full"] is None
    assert "No module named" in rows["tlscale.strategies", "broken"]


def test_env_tells_versions_and_no_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    assert main(["env", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text)["torch"].startswith("2.")
    assert "canary" not in text


@pytest.mark.parametrize(("of", "title"), [("recipe", "tlscale recipe"), ("verdict", "tlscale verdict")])
def test_schemas_are_printed(of: str, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", of]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["title"] == title
    jsonschema.Draft202012Validator.check_schema(printed)
