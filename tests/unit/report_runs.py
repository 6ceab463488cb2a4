"""Finished run directories, by hand: small, with everything a report shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tests.unit import facts
from tlscale.evaluation.types import Measurement, Outcome
from tlscale.planning.item import MemoryItem
from tlscale.planning.seal import fingerprint
from tlscale.planning.types import (
    Batch,
    Budget,
    DataFacts,
    Facts,
    Head,
    Plan,
    PlannedStage,
    Schedule,
    Stage,
    Term,
    Update,
    World,
)
from tlscale.recipe.types import Recipe
from tlscale.report.types import ArmScore, Claim, Contrast, Verdict
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, write_json, write_lines, write_text

HOSTILE = "</script></style></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;|`*_[x](y)"
LABELS = (HOSTILE, "no", "perhaps")
STEPS = 40


def planned_stage(name: str = "train") -> PlannedStage:
    stage = Stage(
        name=name,
        starts_from="base",
        source=None,
        rules=(),
        adapter=None,
        head=Head(kind="native"),
        objective=(Term(),),
        update=Update(learning_rate=1e-3, weight_decay=0.0, betas=(0.9, 0.999), max_grad_norm=1.0),
        schedule=Schedule(kind="cosine", warmup_ratio=0.1),
        budget=Budget(
            epochs=1.0, max_steps=None, eval_steps=None, save_steps=None, logging_steps=1,
            early_stopping_patience=None,
        ),
        group_by_length=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    return PlannedStage(
        stage=stage,
        decisions=(),
        batch=Batch(micro=4, accumulation=1, world=1),
        trainable=48,
        total=5000,
        exact=True,
        steps=STEPS,
        memory=(MemoryItem(name="weights", bytes=20_000),),
    )


def plan(folder: Path, *, task: str = "sequence-classification", seed: int = 0) -> Plan:
    source = {"path": str(folder / "test.csv"), "text": "text", "label": "label"}
    if task == "causal-lm":
        source = {"path": str(folder / "test.csv"), "text": "text"}
    recipe = {
        "version": 1,
        "name": "sample",
        "model": {"model_name_or_path": "tiny", "task": task},
        "data": {"train": source, "test": source},
        "strategy": {"kind": "full"},
    }
    labels = () if task == "causal-lm" else LABELS
    base: Facts = facts.llama().model_copy(update={"labels": labels, "model": f"org/{HOSTILE}"})
    made = Plan(
        fingerprint="",
        recipe=Recipe.model_validate_json(json.dumps(recipe)),
        seed=seed,
        facts=base,
        data=(DataFacts(role="test", where="test.csv", rows=12, format="classification"),),
        world=World(device="cpu", processes=1, dtype="float32", memory_per_device=None),
        stages=(planned_stage(),),
        max_length=64,
        notes=(HOSTILE,),
        versions={"tlscale": "0.1.0"},
    )
    return made.model_copy(update={"fingerprint": fingerprint(made)})


def outcomes(right: Iterable[bool]) -> list[Outcome]:
    """Items whose references take turns through the labels."""
    found = []
    for item, correct in enumerate(right):
        reference = LABELS[item % 3]
        given = reference if correct else LABELS[(item + 1) % 3]
        found.append(
            Outcome(item=item, where=f"test.csv:{item + 2}", nll=0.5, prediction=given, reference=reference)
        )
    return found


def likelihoods(shift: float) -> list[Outcome]:
    return [
        Outcome(item=i, where=f"{HOSTILE}:{i}", tokens=10, nll=30.0 + i - shift * i) for i in range(12)
    ]  # fmt: skip


def write_run(folder: Path, *, task: str = "sequence-classification", seed: int = 0) -> Path:
    """A run of one stage: 12 items of which base and result get 4 and 9 right."""
    layout, made = RunLayout(folder), plan(folder, task=task, seed=seed)
    rows = "".join(f'"question {i} {HOSTILE.replace(chr(34), chr(34) * 2)}",no\n' for i in range(12))
    write_text(folder / "test.csv", f"text,label\n{rows}")
    write_text(layout.recipe, f"# {HOSTILE}\nname: sample\n```\n")
    write_text(layout.plan, made.model_dump_json())
    append_line(layout.events, {"time": 0.0, "event": "start", "versions": made.versions})
    append_line(layout.events, {"time": 1.0, "event": "warning", "text": HOSTILE})
    row = {"rows": 12, "examples": 12, "tokens": 99, "cut_rows": 2, "cut_tokens": 7, "dropped_rows": 0}
    append_line(layout.events, {"time": 1.0, "event": "data", "role": "test", **row})
    append_line(layout.events, {"time": 2.0, "event": "stage", "name": "train", "examples": 12})
    for step in range(1, STEPS + 1):
        values = {"loss": 3.0 / step + 0.5, "learning_rate": 1e-3 * step / STEPS, "tokens_per_second": 10.0}
        append_line(layout.events, {"time": 2.0, "event": "step", "step": step, "steps": STEPS, **values})
        if step % 10 == 0:
            said = {"stage": "train", "step": step, "loss": 3.2 / step + 0.6}
            append_line(layout.events, {"time": 2.0, "event": "validated", **said})
    ended = {"steps": STEPS, "tokens": 400, "seconds": 4.0, "loss": 0.6, "stopped_early": False}
    append_line(layout.events, {"time": 9.0, "event": "trained", "stage": "train", **ended})
    checked = {"tensors": 3, "moved": 3, "max_difference": 0.0, "tolerance": 1e-5}
    append_line(layout.events, {"time": 10.0, "event": "verified", "stage": "train", **checked})
    files = {HOSTILE: {"bytes": 3, "sha256": "abc"}}
    write_json(layout.artifact("train") / "manifest.json", {"kind": "checkpoint", "files": files})
    right = {"base": [i < 4 for i in range(12)], "tuned": [i > 2 for i in range(12)]}
    for arm, answers in right.items():
        items = outcomes(answers)
        if task == "causal-lm":
            items = likelihoods(2.0 if arm == "tuned" else 0.0)
        write_lines(layout.outcomes(arm, "target"), [o.model_dump(exclude_none=True) for o in items])
        measured = Measurement(
            suite="target", arm=arm, metric="accuracy", value=sum(answers) / 12, stderr=0.1, n=12,
            predictor="classifier", stage=None, outcomes=f"outcomes/{arm}-target.jsonl",
        )  # fmt: skip
        append_line(layout.measurements, measured.model_dump())
    return folder


def verdict(word: str = "POSITIVE", *, metric: str = "accuracy", retention: str = "NEGATIVE") -> Verdict:
    """A verdict by hand, with hostile text wherever text goes."""

    def claim(name: str, said: str, asked: str, sign: int) -> Claim:
        contrasts = tuple(
            Contrast(
                against=arm,
                effect=sign * 0.4,
                low=sign * 0.4 - 0.1,
                high=sign * 0.4 + 0.1,
                p_value=0.01,
                p_holm=0.02,
            )
            for arm in ("base", HOSTILE)
        )
        measured = said != "NOT MEASURED"
        return Claim.model_validate({
            "name": name, "metric": asked if measured else None, "word": said,
            "effect": sign * 0.4 if measured else None, "low": sign * 0.4 - 0.1 if measured else None,
            "high": sign * 0.4 + 0.1 if measured else None, "level": 0.95,
            "smallest_detectable": 0.2 if measured else None, "against": HOSTILE if measured else None,
            "n_items": 12, "n_seeds": 1, "method": HOSTILE, "p_value": 0.0004 if measured else None,
            "margin": 0.005, "contrasts": contrasts if measured else (),
        })  # fmt: skip

    arms = tuple(
        ArmScore(
            arm=arm, suite=suite, metric=asked, value=value, stderr=error, n_seeds=1, predictor=HOSTILE
        )
        for suite, asked in (("target", metric), ("target", HOSTILE), ("retention", "nll"))
        for arm, value, error in (("base", 0.33, 0.1), ("tuned", 0.75, None), (HOSTILE, 0.2, 0.05))
    )
    sign = -1 if word == "NEGATIVE" else 1
    spent = {"seconds": 4.0, "tokens": 400.0, "trainable": 48.0, "total": 5000.0}
    return Verdict.model_validate({
        "run": "sample", "word": word, "smoke": True,
        "claims": (claim("target", word, metric, sign), claim("retention", retention, "nll", -1)),
        "arms": arms, "missing_arms": ("scratch",),
        "cost": {**spent, "peak_memory_bytes": None},
        "reasons": (HOSTILE,), "fingerprints": {".": "f00d"},
    })  # fmt: skip
