"""The effects of transfer strategies on real data, as tables: one arm a line, each a real run.

TLSCALE_DATA=FOLDER python benchmarks/strategies.py [NAME ...] [--model FOLDER] [--runs FOLDER] [--seed N]

NAME is sources, ladder or forgetting; without one, all are run. `--model` is a folder with
sentence-transformers/all-MiniLM-L6-v2 where the Hub is out of reach. Runs that are there already are used
as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LORA = "strategy={kind: peft, method: lora, r: 8, lora_alpha: 16, target_modules: all-linear}"
STORIES = 256
FORGETTING: Mapping[str, Sequence[str]] = {
    "full": (),
    "full, a gentler rate": ("train.learning_rate=4e-4",),
    "lora": (LORA, "train.learning_rate=1e-2"),
    "l2_sp 0.01": ("train.objective.l2_sp.weight=0.01",),
    "ewc 0.01": ("train.objective.ewc.weight=0.01", "train.objective.ewc.rows=64"),
    "kl_to_base 1": ("train.objective.kl_to_base.weight=1",),
    "replay 1": ("train.objective.replay.weight=1",),
}
SHOTS = (1, 5, 8, 10)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=("sources", "ladder", "forgetting"), metavar="NAME")
    parser.add_argument("--model", help="a folder with the sentence encoder")
    parser.add_argument("--runs", type=Path, default=Path("runs/strategies"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    encoder = [f"model.model_name_or_path={given.model}", "model.revision=null"] if given.model else []
    chosen = given.names or ["sources", "ladder", "forgetting"]
    if "sources" in chosen:
        sources(given.runs, encoder, given.model)
    if "ladder" in chosen:
        ladder(given.runs, encoder, given.seed)
    if "forgetting" in chosen:
        forgetting(given.runs, given.seed)
    return 0


def tlscale(*arguments: str) -> None:
    """Runs the command line and stops with its code where it fails."""
    done = subprocess.run([sys.executable, "-m", "tlscale", *arguments], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def scores(folder: Path, recipe: str, overrides: Sequence[str]) -> dict[tuple[str, str, str], float]:
    """(arm, suite, metric) -> value of a run, which is made unless it is done."""
    if not (ROOT / folder / "DONE").is_file():
        tlscale("run", recipe, *overrides, f"output_dir={folder}")
    lines = (ROOT / folder / "measurements.jsonl").read_text(encoding="utf-8").splitlines()
    return {(m["arm"], m["suite"], m["metric"]): m["value"] for m in map(json.loads, lines)}


def sources(runs: Path, encoder: Sequence[str], model: str | None) -> None:
    """Every layer of two models as a source of features for 77 intents."""
    recipe = "configs/banking77-features.yaml"
    name = model or "sentence-transformers/all-MiniLM-L6-v2"
    stories = f"{os.environ['TLSCALE_DATA']}/stories260k"
    tlscale(
        "probe", recipe, *encoder, f"output_dir={runs / 'sources'}",
        "--models", f"{name},{stories}", "--layers", "--rows", "5000",
    )  # fmt: skip


def ladder(runs: Path, encoder: Sequence[str], seed: int) -> None:
    """How much each further example of a class is worth to a frozen encoder with a linear head."""
    print("\n| examples a class | accuracy |\n|---|---|")
    for shots in SHOTS:
        asked = [*encoder, f"data.train.per_class={shots}", f"seed={seed}"]
        found = scores(runs / f"ladder-{shots}-{seed}", "configs/banking77-features-10shot.yaml", asked)
        if shots == SHOTS[0]:
            print(f"| none (zero-shot by names) | {found['base', 'target', 'accuracy']:.1%} |")
        print(f"| {shots} | {found['tuned', 'target', 'accuracy']:.1%} |", flush=True)


def forgetting(runs: Path, seed: int) -> None:
    """What keeps a model of stories from forgetting them while it learns Shakespeare."""
    told = ROOT / "runs" / "stories.jsonl"
    if not told.is_file():
        told.parent.mkdir(exist_ok=True)
        model = f"{os.environ['TLSCALE_DATA']}/stories260k"
        argv = [sys.executable, "tools/stories.py", model, str(told), str(STORIES)]
        subprocess.run(argv, cwd=ROOT, check=True)
    rows: dict[str, tuple[float, float]] = {}
    for name, overrides in FORGETTING.items():
        folder = runs / f"forgetting-{name.replace(' ', '-').replace(',', '')}-{seed}"
        found = scores(folder, "benchmarks/forgetting.yaml", [*overrides, f"seed={seed}"])
        for arm, row in (("base", "base"), ("tuned", name)):
            rows[row] = (found[arm, "target", "nll"], found[arm, "retention", "nll"])
    (_, before), (best, worst) = rows["base"], rows["full"]
    print("\n| | Shakespeare | stories | forgetting removed | price |\n|---|---|---|---|---|")
    for row, (target, kept) in rows.items():
        shares = ""
        if row not in ("base", "full"):
            shares = f"{(worst - kept) / (worst - before):.0%} | {target - best:+.3f}"
        print(f"| {row} | {target:.3f} | {kept:.3f} | {shares or '|'} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
