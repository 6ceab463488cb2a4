"""Holds the scorer's answers against those of lm-evaluation-harness's own `hf` model, task by task.

    python benchmarks/parity.py [--limit N] [--model TEXT] [--json]

Both answer the same requests of the harness's own prompts over the local files, in float32 on the CPU, on
four models: stories260k (a trained Llama), a random Llama of 15 million parameters, a random GPT-2 and a
random encoder-decoder. Printed for each task: the largest difference of a log-likelihood, how many
documents have the same choice (or greedy flag, or text), and whether every metric is the same number.
Needs TLSCALE_DATA and the extra lm-eval. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BAR = 1e-4
# Task, shots: lm-evaluation-harness's own number is 0 for all but MMLU's.
TASKS = (
    ("hellaswag", 0),
    ("hellaswag", 2),
    ("arc_easy", 0),
    ("arc_challenge", 2),
    ("piqa", 1),
    ("copa", 0),
    ("winogrande", 0),
    ("openbookqa", 0),
    ("boolq", 0),
    ("lambada_openai", 0),
    ("mmlu_anatomy", 5),
    ("gsm8k", 2),
)
MODELS = ("stories260k", "llama-15m", "gpt2", "t5")


@dataclass(frozen=True)
class Line:
    """One task on one model: what differed."""

    model: str
    task: str
    shots: int
    documents: int
    largest_difference: float
    same_choices: int
    same_metrics: bool

    @property
    def equal(self) -> bool:
        """Whether the bars are met."""
        return self.largest_difference <= BAR and self.same_choices == self.documents and self.same_metrics


def compare(model: str, module: Any, tokenizer: Any, folder: Path, limit: int, tasks: Any) -> list[Line]:
    """Every task, answered by both."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from tlscale.evaluation.harness.model import HarnessModel
    from tlscale.evaluation.scoring.scorer import ModelScorer

    two_sided = bool(module.config.is_encoder_decoder)
    theirs = HFLM(
        pretrained=module, tokenizer=tokenizer, batch_size=8, backend="seq2seq" if two_sided else "causal"
    )
    ours = HarnessModel(scorer=ModelScorer(module, tokenizer, note=print))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = []
    for task, shots in tasks:
        results = [
            lm_eval.simple_evaluate(
                model=lm,
                tasks=[task],
                num_fewshot=shots,
                limit=limit,
                bootstrap_iters=0,
                task_manager=manager,
            )
            for lm in (theirs, ours)
        ]
        found.append(_line(model, task, shots, *results, alike=not two_sided))
    return found


def _line(model: str, task: str, shots: int, theirs: Any, ours: Any, *, alike: bool) -> Line:
    pairs = list(zip(theirs["samples"][task], ours["samples"][task], strict=True))
    largest, same = 0.0, 0
    for a, b in pairs:
        one, other = ([answer[0] for answer in row["resps"]] for row in (a, b))
        if isinstance(one[0], str):
            # The harness adds the prompt's length to what an encoder-decoder may generate.
            same += one == other if alike else one[0].startswith(other[0])
            continue
        likely, flags = zip(*one, strict=True)
        likely_, flags_ = zip(*other, strict=True)
        largest = max(largest, *(abs(x - y) for x, y in zip(likely, likely_, strict=True)))
        same += likely.index(max(likely)) == likely_.index(max(likely_)) and flags == flags_
    wanted, got = (_metrics(result["results"][task]) for result in (theirs, ours))
    close = all(abs(value - got[name]) <= BAR * abs(value) for name, value in wanted.items())
    return Line(model, task, shots, len(pairs), largest, same, close)


def _metrics(results: Any) -> dict[str, float]:
    return {name: value for name, value in results.items() if isinstance(value, float)}


def load(name: str, folder: Path, data: Path) -> tuple[Any, Any]:
    """A model of the table and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchmarks import local_models

    if name == "stories260k":
        path = str(data / name)
        module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        return module, AutoTokenizer.from_pretrained(path)
    make: dict[str, Callable[[], Any]] = {
        "llama-15m": local_models.llama,
        "gpt2": local_models.gpt2,
        "t5": local_models.t5,
    }
    return make[name](), local_models.tokenizer(folder / "tokenizer", data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=int, default=40, help="documents of each task")
    parser.add_argument("--model", default="", help=f"only those with TEXT in their name: {MODELS}")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    data = os.environ.get("TLSCALE_DATA")
    if not data:
        parser.error("set TLSCALE_DATA to the folder of local data sets")
    from benchmarks import local_tasks

    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        local_tasks.write(folder / "tasks", Path(data))
        for name in MODELS:
            if asked.model in name:
                module, tokenizer = load(name, folder, Path(data))
                lines += compare(name, module, tokenizer, folder / "tasks", asked.limit, TASKS)
    if asked.json:
        print(json.dumps([{**asdict(line), "equal": line.equal} for line in lines]))
    else:
        print(f"{'model':<12} {'task':<15} shots documents  largest difference  same choice  metrics")
        for line in lines:
            share = f"{line.same_choices}/{line.documents}"
            print(
                f"{line.model:<12} {line.task:<15} {line.shots:>5} {line.documents:>9} "
                f"{line.largest_difference:>19.1e} {share:>12}  {'same' if line.same_metrics else 'DIFFER'}"
            )
    return 0 if all(line.equal for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
