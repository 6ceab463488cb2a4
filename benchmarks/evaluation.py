"""Scoring and generating beside lm-evaluation-harness's own `hf` model, on the harness's own prompts.

    python benchmarks/evaluation.py [--only TEXT] [--pairs N] [--scale X] [--json]

Both answer the same requests with the same model in float32 on the CPU: a random Llama of 15.2 million
parameters in the shape of stories15M (vocabulary 32,000). The harness runs at the best of several batch
sizes, found by trying. The contenders take turns (A B B A ...); compared are CPU seconds, tokenization
included, with a scorer made anew for every turn. Printed are the median ratio with its range, the noise of
the harness against itself, the growth of memory in a process of its own, and beside them the gate: the
largest difference of a log-likelihood and how many choices (or texts) are the same. Needs TLSCALE_DATA and
the extra lm-eval. Exits with 1 where a bar or the gate is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BATCHES = (1, 8, 32)
KILOBYTE = 1024  # the unit of ru_maxrss on Linux
GATE = 1e-4


@dataclass(frozen=True)
class Work:
    """A workload: so many documents of each task with so many shots, and the ratio to be reached."""

    name: str
    tasks: tuple[str, ...]
    shots: int
    documents: int
    bar: float


WORKS = (
    Work("10-shot, fixed examples, options of many tokens", ("hellaswag_fixed",), 10, 12, 12.0),
    Work("10-shot HellaSwag, examples drawn for each document", ("hellaswag",), 10, 8, 3.0),
    Work("5-shot MMLU, options of one token", ("mmlu_anatomy", "mmlu_astronomy"), 5, 16, 5.0),
    Work("zero-shot multiple choice", ("hellaswag", "arc_easy", "piqa"), 0, 24, 1.8),
    Work("generation after 8 shared examples", ("gsm8k",), 8, 16, 2.0),
)


@dataclass(frozen=True)
class Line:
    """What one workload came to; seconds are medians of CPU time, memory is in bytes."""

    name: str
    requests: int
    batch: int
    theirs: float
    ours: float
    ratio: float
    low: float
    high: float
    noise: float
    bar: float
    theirs_memory: int
    ours_memory: int
    difference: float
    same: int
    items: int

    @property
    def equal(self) -> bool:
        """Whether the gate is passed."""
        return self.difference <= GATE and self.same == self.items

    @property
    def met(self) -> bool:
        """Whether the bar is reached, by equal answers, in no more memory."""
        return self.equal and self.ratio >= self.bar and self.ours_memory <= self.theirs_memory


Answer = Callable[[Sequence[Any]], list[Any]]


def instances(work: Work, folder: Path, scale: float) -> list[Any]:
    """The requests that the harness makes of a workload's documents."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = []
    for name in work.tasks:
        task: Any = manager.load([name])["tasks"][name]
        task.set_config(key="num_fewshot", value=work.shots)
        task.set_fewshot_seed(seed=1234)
        task.build_all_requests(limit=max(2, round(work.documents * scale)), rank=0, world_size=1)
        found += task.instances
    return found


def answering(lm: Any, requests: Sequence[Any]) -> list[Any]:
    """All requests' answers; they are of one kind."""
    if requests[0].request_type == "generate_until":
        return list(lm.generate_until(requests, disable_tqdm=True))
    return list(lm.loglikelihood(requests, disable_tqdm=True))


def seconds(answer: Answer, requests: Sequence[Any]) -> tuple[float, list[Any]]:
    """CPU seconds of answering, and the answers."""
    start = time.process_time()
    found = answer(requests)
    return time.process_time() - start, found


def memory(answer: Answer, requests: Sequence[Any]) -> int:
    """By how much a process that does nothing else grows while it answers."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_grown, args=(answer, requests, send))
    child.start()
    grown = int(receive.recv())
    child.join()
    return grown


def _grown(answer: Answer, requests: Sequence[Any], send: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer(requests)
    send.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * KILOBYTE)


def best_batch(make: Callable[[int], Answer], requests: Sequence[Any]) -> int:
    """The harness's fastest batch size on a part of the workload."""
    few = requests[: max(8, len(requests) // 3)]
    return min(BATCHES, key=lambda size: seconds(make(size), few)[0])


def measure(work: Work, module: Any, tokenizer: Any, folder: Path, pairs: int, scale: float) -> Line:
    """One workload by both, in turns."""
    from lm_eval.models.huggingface import HFLM

    from tlscale.evaluation.harness.model import HarnessModel
    from tlscale.evaluation.scoring.scorer import ModelScorer

    def theirs(size: int) -> Answer:
        lm = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=size)
        return lambda requests: answering(lm, requests)

    def ours(requests: Sequence[Any]) -> list[Any]:
        return answering(HarnessModel(scorer=ModelScorer(module, tokenizer)), requests)

    requests = instances(work, folder, scale)
    size = best_batch(theirs, requests)
    reference = theirs(size)
    grown = memory(reference, requests), memory(ours, requests)
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    answers = {}
    for turn in range(pairs):
        order = ("theirs", "ours") if turn % 2 == 0 else ("ours", "theirs")
        for name in order:
            spent, answers[name] = seconds(reference if name == "theirs" else ours, requests)
            times[name].append(spent)
    ratios = [a / b for a, b in zip(times["theirs"], times["ours"], strict=True)]
    difference, same, items = agreement(requests, answers["theirs"], answers["ours"])
    return Line(
        name=work.name,
        requests=len(requests),
        batch=size,
        theirs=statistics.median(times["theirs"]),
        ours=statistics.median(times["ours"]),
        ratio=statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        noise=max(times["theirs"]) / min(times["theirs"]) - 1,
        bar=work.bar,
        theirs_memory=grown[0],
        ours_memory=grown[1],
        difference=difference,
        same=same,
        items=items,
    )


def agreement(
    requests: Sequence[Any], theirs: Sequence[Any], ours: Sequence[Any]
) -> tuple[float, int, int]:
    """Largest difference of a log-likelihood; documents with the same choice (or text); of how many."""
    if isinstance(theirs[0], str):
        return 0.0, sum(a == b for a, b in zip(theirs, ours, strict=True)), len(theirs)
    largest = max(abs(a[0] - b[0]) for a, b in zip(theirs, ours, strict=True))
    documents: dict[tuple[str, int], list[int]] = {}
    for at, request in enumerate(requests):
        documents.setdefault((request.task_name, request.doc_id), []).append(at)
    same = sum(
        max(own, key=lambda at: theirs[at][0]) == max(own, key=lambda at: ours[at][0])
        for own in documents.values()
    )
    return largest, same, len(documents)


def shown(line: Line) -> str:
    """A workload as three lines of text."""
    mega = 1e6
    return (
        f"{line.name} ({line.requests} requests)\n"
        f"    hf at batch {line.batch:<3} {line.theirs:7.2f} s   {line.theirs_memory / mega:6.0f} MB    "
        f"tlscale {line.ours:6.2f} s   {line.ours_memory / mega:6.0f} MB    "
        f"ratio {line.ratio:5.1f} [{line.low:.1f}, {line.high:.1f}]   bar {line.bar:g}\n"
        f"    largest difference {line.difference:.1e}   same {line.same}/{line.items}   "
        f"hf against itself {line.noise:.0%}   {'met' if line.met else 'MISSED'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="only workloads with TEXT in their name")
    parser.add_argument("--pairs", type=int, default=5, help="turns of each contender")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many documents")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    data = os.environ.get("TLSCALE_DATA")
    if not data:
        parser.error("set TLSCALE_DATA to the folder of local data sets")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from benchmarks import local_models, local_tasks

    lines = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        local_tasks.write(folder / "tasks", Path(data))
        tokenizer = local_models.tokenizer(folder / "tokenizer", Path(data))
        module = local_models.llama()
        for work in WORKS:
            if asked.only in work.name:
                lines.append(measure(work, module, tokenizer, folder / "tasks", asked.pairs, asked.scale))
                if not asked.json:
                    print(shown(lines[-1]), flush=True)
    if asked.json:
        print(json.dumps([{**asdict(line), "met": line.met} for line in lines]))
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
