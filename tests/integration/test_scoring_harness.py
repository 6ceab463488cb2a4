"""lm-evaluation-harness beside our scorer: equal answers, our model in it, its tasks on ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import local_tasks
from tlscale.runs.record import read_lines

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def definitions(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    local_tasks.write(folder, data_root)
    return folder


def test_answers_equal_those_of_the_harness_on_its_own_prompts(data_root: Path) -> None:
    done = run("benchmarks/parity.py", "--limit", "3", "--model", "stories", "--json")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = json.loads(done.stdout.splitlines()[-1])
    assert len({line["task"] for line in lines if line["equal"]}) >= 8


@pytest.mark.long
@pytest.mark.parametrize("model", ["llama-15m", "gpt2", "t5"])
def test_answers_of_other_shapes_equal_those_of_the_harness(model: str, data_root: Path) -> None:
    done = run("benchmarks/parity.py", "--limit", "8", "--model", model)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_the_harness_finds_the_scorer_as_a_model_of_its_own(
    data_root: Path, definitions: Path, tmp_path: Path
) -> None:
    done = run(
        "-m", "tlscale.evaluation.harness", "--model", "tlscale",
        "--model_args", f"pretrained={data_root / 'stories260k'},dtype=float32",
        "--tasks", "copa", "--include_path", str(definitions), "--limit", "5",
        "--output_path", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = tmp_path.rglob("results*.json")
    assert json.loads(written.read_text())["results"]["copa"]["acc,none"] in (0, 0.2, 0.4, 0.6, 0.8, 1)


PROGRAM = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
from tlscale.errors import UsageError
from tlscale.evaluation.harness import tasks
from tlscale.evaluation.scoring.scorer import ModelScorer
model, folder = sys.argv[1:]
scorer = ModelScorer(AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model))
(found,) = tasks.evaluate(f"{folder}/piqa", scorer, shots=1, limit=6)
assert len(found.samples) == 6 and found.task == "piqa", found
value = sum(sample.metrics["acc"] for sample in found.samples) / 6
assert abs(found.metrics["acc"][0] - value) < 1e-9, found.metrics
for wrong, said in (("hellaswga", "hellaswag"), ("nowhere/piqa", "no folder")):
    try:
        tasks.evaluate(wrong, scorer)
    except UsageError as error:
        assert said in str(error), error
    else:
        raise AssertionError(wrong)
"""


def test_its_tasks_run_on_the_scorer_by_name(data_root: Path, definitions: Path) -> None:
    done = run("-c", PROGRAM, str(data_root / "stories260k"), str(definitions))
    assert done.returncode == 0, done.stderr[-2000:]


def test_its_tasks_run_in_an_evaluation_and_score_as_in_the_harness(
    data_root: Path, definitions: Path, tmp_path: Path
) -> None:
    model = str(data_root / "stories260k")
    asked = ",".join(f"lm_eval:{definitions}/{name}" for name in ("copa", "gsm8k", "nosuch"))
    done = run(
        "-m", "tlscale", "eval", model, "hardware.processes=2", "--tasks", asked, "--limit", "5",
        "--shots", "0,1", "--output", str(tmp_path / "ours"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "nosuch: unknown task" in done.stderr, done.stderr[-2000:]
    rows = list(read_lines(tmp_path / "ours" / "measurements.jsonl"))
    ours = {(row["suite"], row["metric"]): row["value"] for row in rows}
    assert {suite for suite, _ in ours} == {
        f"lm_eval-{name}{shots}" for name in ("copa", "gsm8k") for shots in ("", "-1shot")
    }
    assert len(list(read_lines(tmp_path / "ours" / "outcomes" / "base-lm_eval-copa.jsonl"))) == 5
    theirs = run(
        "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32",
        "--tasks", "copa,gsm8k", "--include_path", str(definitions), "--limit", "5",
        "--num_fewshot", "1", "--device", "cpu", "--output_path", str(tmp_path / "theirs"),
    )  # fmt: skip
    assert theirs.returncode == 0, theirs.stderr[-2000:]
    (written,) = (tmp_path / "theirs").rglob("results*.json")
    for task, found in json.loads(written.read_text())["results"].items():
        for key, value in found.items():
            metric = key.removesuffix(",none")
            if (f"lm_eval-{task}-1shot", metric) in ours:
                assert ours[f"lm_eval-{task}-1shot", metric] == value
                ours.pop((f"lm_eval-{task}-1shot", metric))
    assert not [one for one in ours if one[0].endswith("-1shot")]
