"""The quickstart's recipe, shortened, from data to an adapter that plain PEFT loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


SHORT = ("train.max_steps=12", "evaluate.max_rows=20", "train.save_steps=6")
CONTENT = "recipe.yaml plan.json events.jsonl measurements.jsonl outcomes adapter DONE checkpoints"


def tlscale(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlscale", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps."""
    folder = tmp_path_factory.mktemp("runs") / "quick start"
    done = tlscale("run", "configs/quickstart.yaml", f"output_dir={folder}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "base" in done.stdout
    assert "tuned" in done.stdout
    assert "Next: tlscale verify" in done.stdout
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_run_directory_tells_everything(run: Path) -> None:
    assert {p.name for p in run.iterdir()} >= set(CONTENT.split())
    kinds = [row["event"] for row in rows(run / "events.jsonl")]
    assert kinds[0] == "start"
    assert {"data", "start", "stage", "step", "trained", "verified", "done"} <= set(kinds)
    found = {(m["suite"], m["arm"], m["metric"]): m for m in rows(run / "measurements.jsonl")}
    assert len(found) == 8
    assert found["target", "tuned", "nll"]["value"] < found["target", "base", "nll"]["value"] - 0.1
    base, tuned = (rows(run / "outcomes" / f"{arm}-target.jsonl") for arm in ("base", "tuned"))
    assert len({str(outcome["where"]).split()[0] for outcome in base}) == 20
    assert [(o["item"], o["where"], o["tokens"]) for o in base] == [
        (o["item"], o["where"], o["tokens"]) for o in tuned
    ]


def test_the_adapter_is_readable_by_whoever_may_read_the_run(run: Path) -> None:
    modes = {path.name: path.stat().st_mode for path in (run / "adapter").iterdir()}
    assert set(modes.values()) == {(run / "plan.json").stat().st_mode}, modes


# PEFT asks transformers by a name that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_plain_peft_loads_the_adapter_and_scores_the_same(run: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(ROOT / "tlscale" / "assets" / "pico")
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    model = PeftModel.from_pretrained(base, run / "adapter").eval()
    outcomes = rows(run / "outcomes" / "tuned-target.jsonl")
    text = json.loads((ROOT / "tlscale" / "assets" / "code-test.jsonl").read_text().splitlines()[0])["text"]
    tokens = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id][:256]])
    with torch.no_grad():
        loss = model(input_ids=tokens, labels=tokens).loss
    assert float(loss) * (tokens.shape[1] - 1) == pytest.approx(outcomes[0]["nll"], rel=1e-4)


def test_verify_passes_and_then_notices_a_changed_byte(run: Path, tmp_path: Path) -> None:
    assert tlscale("verify", str(run)).returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, symlinks=True)
    weights = copy / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 0x40
    weights.write_bytes(bytes(content))
    done = tlscale("verify", str(copy))
    assert done.returncode == 5
    assert "adapter_model.safetensors" in done.stderr


def test_running_again_does_nothing_over(run: Path) -> None:
    before = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    done = tlscale("run", "configs/quickstart.yaml", f"output_dir={run}", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "done before" in done.stdout
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == before
    done = tlscale("run", "configs/quickstart.yaml", f"output_dir={run}", "train.max_steps=13")
    assert done.returncode == 2
    assert "another plan" in done.stderr


def test_a_changed_plan_is_refused(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, symlinks=True)
    plan = json.loads((copy / "plan.json").read_text())
    plan["seed"] = 5
    (copy / "plan.json").write_text(json.dumps(plan))
    done = tlscale("verify", str(copy))
    assert done.returncode == 2
    assert "changed after it was written" in done.stderr
