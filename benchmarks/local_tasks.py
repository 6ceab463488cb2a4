"""Task definitions of lm-evaluation-harness over local files, with its own prompts, for comparisons.

The harness fetches its data from the Hub; these definitions say the same of the files that TLSCALE_DATA
has (its SOURCES.md names them), in the same prompt formats: `hellaswag`, `arc_easy`, `arc_challenge`,
`piqa`, `copa`, `winogrande`, `openbookqa`, `boolq`, `lambada_openai`, `gsm8k` and `mmlu_SUBJECT`.
`hellaswag_fixed` is hellaswag with the same examples before every document.
"""

from __future__ import annotations

import bz2
import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

SUBJECTS = ("abstract_algebra", "anatomy", "astronomy", "business_ethics")
CHOICES: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
LOCAL = {
    "arc_easy": ("world_knowledge/arc_easy", "{{query}}\nAnswer:"),
    "arc_challenge": ("world_knowledge/arc_challenge", "{{query}}\nAnswer:"),
    "piqa": ("commonsense_reasoning/piqa", "{{query.strip()}}\nAnswer:"),
    "copa": ("commonsense_reasoning/copa", "{{query}}"),
    "openbookqa": ("commonsense_reasoning/openbook_qa", "{{query}}"),
    "boolq": ("reading_comprehension/boolq", "{{query}}"),
}
ABOUT = "The following are multiple choice questions (with answers) about"
LAST = 400  # of a file that is all there is, examples come from its last rows


def write(folder: Path, data: Path) -> tuple[str, ...]:
    """Writes all definitions and the files they read to `folder`; gives the tasks' names."""
    folder.mkdir(parents=True, exist_ok=True)
    named: list[str] = []

    def add(
        name: str, rows: Iterable[Mapping[str, Any]], shots: Iterable[Mapping[str, Any]], **what: Any
    ) -> None:
        files = {}
        for split, part in (("test", rows), ("train", shots)):
            file = folder / f"{name}-{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
            files[split] = str(file)
        definition = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            "fewshot_split": "train",
            **what,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(definition, sort_keys=False), encoding="utf-8")
        named.append(name)

    swag = hellaswag(data)
    text = {**CHOICES, "doc_to_text": "{{query}}"}
    add("hellaswag", swag[:-LAST], swag[-LAST:], **text)
    add("hellaswag_fixed", swag[:-LAST], swag[-LAST:], **text, fewshot_config={"sampler": "first_n"})
    for name, (file, prompt) in LOCAL.items():
        rows = _lines(data / "lm_eval_local" / f"{file}.jsonl")
        half = max(len(rows) // 2, len(rows) - LAST)
        add(name, rows[:half], rows[half:], **{**CHOICES, "doc_to_text": prompt})
    rows = _lines(data / "lm_eval_local/language_understanding/winogrande.jsonl")
    schema = {**CHOICES, "doc_to_text": "gold", "doc_to_choice": "context_options"}
    metric = {"metric_list": [{"metric": "acc"}]}
    add("winogrande", rows[:-LAST], rows[-LAST:], **{**schema, "doc_to_target": "continuation", **metric})
    rows = _lines(data / "lm_eval_local/language_understanding/lambada_openai.jsonl")
    likely = {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{' '+continuation}}",
    }
    add(
        "lambada_openai",
        rows[:-LAST],
        rows[-LAST:],
        **likely,
        metric_list=[{"metric": "perplexity"}, *metric["metric_list"]],
    )
    _mmlu(data / "mmlu", add)
    add("gsm8k", _lines(data / "gsm8k/test.jsonl"), _lines(data / "gsm8k/train.jsonl"), **_gsm8k())
    return tuple(named)


def hellaswag(data: Path) -> list[dict[str, Any]]:
    """Documents of the file of six lines each: context, index of the right ending, four endings."""
    (file,) = (data / "hellaswag").glob("*.bz2")
    lines = bz2.decompress(file.read_bytes()).decode().splitlines()
    return [
        {"query": lines[at], "gold": int(lines[at + 1]), "choices": lines[at + 2 : at + 6]}
        for at in range(0, len(lines) - 5, 6)
    ]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _mmlu(folder: Path, add: Any) -> None:
    letters = [f"{letter}. {{{{choices[{at}]}}}}" for at, letter in enumerate("ABCD")]
    prompt = "\n".join(["{{question.strip()}}", *letters, "Answer:"])
    for subject in SUBJECTS:
        parts = []
        for split in ("test", "dev"):
            with (folder / split / f"{subject}_{split}.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))[1:]
            parts.append([{"question": q, "choices": c, "gold": int(gold)} for q, *c, gold in rows])
        add(
            f"mmlu_{subject}",
            *parts,
            output_type="multiple_choice",
            description=f"{ABOUT} {subject.replace('_', ' ')}.\n\n",
            doc_to_text=prompt,
            doc_to_choice=["A", "B", "C", "D"],
            doc_to_target="gold",
            fewshot_config={"sampler": "first_n"},
            metric_list=[{"metric": "acc"}],
        )


def _gsm8k() -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "fewshot_config": {"sampler": "first_n"},
        "generation_kwargs": {"until": ["Question:", "</s>"], "do_sample": False, "max_gen_toks": 64},
        "metric_list": [{"metric": "exact_match", "regexes_to_ignore": [",", "(?s).*#### ", "\\.$"]}],
    }
