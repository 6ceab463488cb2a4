"""Batch scripts: as they were last looked at, quoted whatever is written, and never executing a value."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.slurm_jobs import GOLDEN, SEARCH, job, search, step
from tlscale.errors import UsageError
from tlscale.launching import search as searches
from tlscale.launching.search import search_script
from tlscale.launching.slurm import BODY, Job, clock, sbatch_argv, step_script, training_script
from tlscale.recipe.launch import Slurm

FOLDER = Path(__file__).parents[1] / "golden"
CANARY = "touch CANARY"
HOSTILE = [
    f"$({CANARY})",
    f"`{CANARY}`",
    f"; {CANARY}",
    f"& {CANARY} &",
    f"| {CANARY}",
    f"|| {CANARY}",
    f"&& {CANARY}",
    f"\n{CANARY}\n",
    f"\r\n{CANARY}",
    f"'; {CANARY}; '",
    f'"; {CANARY}; "',
    f"') {CANARY} #",
    f'")\n{CANARY}',
    f"${{IFS}}$({CANARY})",
    f"$'\\n{CANARY}'",
    f"<({CANARY})",
    f">({CANARY})",
    f"x\n#SBATCH --wrap='{CANARY}'",
    f"x --wrap={CANARY}",
    f"--wrap={CANARY}",
    f"-D. --wrap={CANARY}",
    f"a b; {CANARY}",
    f"a\\; {CANARY}",
    f"a\\\n{CANARY}",
    f"{{{CANARY},x}}",
    f"~; {CANARY}",
    f"!!; {CANARY}",
    f"*; {CANARY}",
    f"[; {CANARY}",
    f"a'b; {CANARY}",
    f'a"b; {CANARY}',
    f"a'$({CANARY})'b",
    f'a"$({CANARY})"b',
    f"\\$({CANARY})",
    f"\\`{CANARY}\\`",
    f"%j; {CANARY}",
    f"%%; {CANARY}",
    "%x",
    f"a#{CANARY}",
    f"# {CANARY}",
    f"\x00{CANARY}",
    f"\x1b[2J{CANARY}",
    f"\u2028{CANARY}",
    f"\u202e{CANARY}",
    f"esac; {CANARY}; case x in",
    f";; *) {CANARY} ;;",
    f"x) {CANARY} ;; y",
    f"EOF\n{CANARY}",
    f"$(({CANARY}))",
    f"@(a|$({CANARY}))",
    f"é; {CANARY}",
    f"  {CANARY}  ",
]
FIELDS = [
    "partition", "account", "qos", "reservation", "constraint", "exclude", "memory", "time", "gpu_type",
    "container", "scratch", "python", "modules", "mounts", "environment", "root", "run",
]  # fmt: skip


def put(field: str, value: str) -> Job:
    """A job with `value` in one place."""
    if field in ("root", "run"):
        return job((f"/data/{value}",)) if field == "run" else job(root=f"/data/{value}")
    if field == "python":
        return replace(job(python=value), settings=Slurm(python=value))
    given: Any = {"modules": (value,), "mounts": (value,), "environment": {"NAME": value}}.get(field, value)
    more = {"container": "image"} if field == "mounts" else {}
    return job(gpus_per_node=1, **{field: given}, **more)


def values(script: str, folder: Path) -> list[str]:
    """What bash makes of the script's own part: the lists and variables that hold values."""
    head = script.partition(BODY.read_text())[0].replace("module load", "true module load")
    said = 'printf "%s\\0" "${runs[@]}" "${inside[@]}" "$python" "${NAME-}" "${TMPDIR-}"'
    done = subprocess.run(
        ["/bin/bash", "-c", f"{head}\n{said}"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split("\0")[:-1]


SCRIPTS = {
    **{name: training_script(made) for name, made in GOLDEN.items()},
    "search": search_script(SEARCH),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_is_what_it_was(name: str) -> None:
    file = FOLDER / f"slurm-{name}.sbatch"
    assert SCRIPTS[name] == file.read_text(encoding="utf-8"), "python -m tests.unit.test_slurm_script"


@pytest.mark.parametrize("field", FIELDS)
def test_nothing_hostile_is_executed(field: str, tmp_path: Path) -> None:
    assert len(HOSTILE) >= 50
    survived = 0
    for hostile in HOSTILE:
        try:
            script = training_script(put(field, hostile))
        except (ValidationError, UsageError):
            continue
        survived += 1
        found = values(script, tmp_path)
        assert list(tmp_path.iterdir()) == [], hostile
        assert field == "root" or any(hostile in word for word in found), hostile
        assert sum(line.startswith("#SBATCH") for line in script.splitlines()) <= 8
    assert survived > 0 or field not in ("container", "environment", "run", "python")


def test_nothing_hostile_is_executed_in_a_search(tmp_path: Path) -> None:
    kept = [text for text in HOSTILE if text.isprintable() and "%" not in text]
    script = search_script(search(*kept, root=f"/data/{kept[0]}")).partition(searches.BODY.read_text())[0]
    done = subprocess.run(
        ["/bin/bash", "-c", f'{script}\nprintf "%s\\0" "${{command[@]}}" "$root"'],
        cwd=tmp_path, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, check=True,
    )  # fmt: skip
    assert done.stdout.split("\0")[5:-1] == [*kept, f"/data/{kept[0]}"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [True, False], ids=["there", "not there"])
def test_a_module_that_cannot_be_loaded_ends_the_job(there: bool, tmp_path: Path) -> None:
    script = step_script(step(("report", "/r"), modules=("tl/1.0",)))
    head = script.partition("set -euo pipefail")[0]
    load = "echo loaded $2" if there else "return 1"
    done = subprocess.run(
        ["/bin/bash", "-c", f"module() {{ {load}; }}\n{head}\necho began"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == ((0, "loaded tl/1.0\nbegan\n") if there else (1, ""))


PRINTABLE = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="%"), min_size=1
).filter(lambda text: text.isprintable() and not text.startswith("-"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(variable=PRINTABLE, run=PRINTABLE, image=PRINTABLE, python=PRINTABLE)
def test_every_value_arrives_as_it_was_written(
    tmp_path: Path, variable: str, run: str, image: str, python: str
) -> None:
    made = job((f"/data/{run}",), python=python, environment={"NAME": variable}, container=image)
    found = values(training_script(made), tmp_path)
    flags = [f"--container-image={image}", "--container-mount-home"]
    assert found == [str(Path(f"/data/{run}")), *flags, python, variable, ""]


@pytest.mark.parametrize(
    ("given_time", "shown"),
    [
        ("4h", "0-04:00:00"),
        ("90m", "0-01:30:00"),
        ("2-12:00", "2-12:00:00"),
        ("30:00", "0-00:30:00"),
        ("36:00:00", "1-12:00:00"),
    ],
)
def test_times_are_slurms(given_time: str, shown: str) -> None:
    assert clock(given_time) == shown


@pytest.mark.parametrize(
    "field", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "my password", "1X"]
)
def test_secrets_and_wrong_names_stay_out_of_the_script(field: str) -> None:
    with pytest.raises(ValidationError, match=r"secret|name of a variable"):
        Slurm(environment={field: "x"})


@pytest.mark.parametrize("flag", ["--wrap=x", "--output=x", "-ox", "-o", "--array=1-9", "-N4", "rm -rf"])
def test_flags_that_the_script_needs_are_refused(flag: str) -> None:
    with pytest.raises(UsageError, match=r"sets .* itself|must be given as"):
        sbatch_argv(Path("a"), Path("b"), flags=(flag,))


def test_a_later_job_never_waits_for_what_cannot_come() -> None:
    argv = sbatch_argv(Path("/d/x.sbatch"), Path("/d/log"), flags=("--mail-type=END",), after=("7", "9"))
    assert argv == (
        "sbatch", "--parsable", "--output=/d/log", "--dependency=afterok:7:9", "--kill-on-invalid-dep=yes",
        "--mail-type=END", "/d/x.sbatch",
    )  # fmt: skip


def test_the_commands_of_a_later_job_are_quoted() -> None:
    script = step_script(step(("eval", "/data/a b"), ("report", "/data/$(x)"), time="1h"))
    assert "-m tlscale eval '/data/a b'\n" in script
    assert "-m tlscale report '/data/$(x)'\n" in script
    assert "#SBATCH --time=0-01:00:00" in script


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    files = [*FOLDER.glob("slurm-*.sbatch"), *(FOLDER.parents[1] / "launch").glob("*.sbatch")]
    assert len(files) >= len(SCRIPTS) + 2
    argv = ["shellcheck", "-s", "bash", *map(str, files)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    for golden, script in SCRIPTS.items():
        (FOLDER / f"slurm-{golden}.sbatch").write_text(script, encoding="utf-8")
