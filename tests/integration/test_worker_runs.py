"""Whole runs inside this process on tiny models: every task, strategies, stages and options."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, PartialState

from tests.integration import tiny
from tlscale.errors import TlscaleError
from tlscale.outer.repeat import prepare, runs_of
from tlscale.planning.compile import read_plan
from tlscale.recipe.load import check
from tlscale.runs.layout import RunLayout
from tlscale.worker.run import ACTIONS

Run = Callable[..., RunLayout]
LORA = {"kind": "peft", "method": "lora", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "causal-lm": tiny.llama(root / "llama"),
        "sequence-classification": tiny.bert(root / "bert"),
        "sentence-embedding": root / "bert",
        "masked-lm": tiny.masked_bert(root / "masked"),
        "encoder": tiny.masked_bert(root / "encoder", head=False),
        "image-classification": tiny.vit(root / "vit"),
        "rows": tiny.sentences(root / "rows.jsonl", 64),
        "more": tiny.sentences(root / "more.jsonl", 32, seed=1),
        "pictures": tiny.pictures(root / "pictures.npz"),
    }


COLUMNS = {
    "causal-lm": {"prompt": "prompt", "completion": "completion"},
    "sequence-classification": {"text": "text", "label": "label"},
    "sentence-embedding": {"anchor": "anchor", "positive": "positive"},
    "masked-lm": {"text": "text"},
    "image-classification": {"image": "images", "label": "labels"},
}


@pytest.fixture
def run(models: dict[str, Path], tmp_path: Path) -> Run:
    """Runs a recipe in this process and gives its directory."""

    def execute(task: str, *, expect: int = 1, **sections: Any) -> RunLayout:
        images = task == "image-classification"
        source = {"path": str(models["pictures" if images else "rows"]), **COLUMNS.get(task, {})}
        raw: dict[str, Any] = {
            "version": 1,
            "name": "tiny",
            "output_dir": str(tmp_path / sections.pop("folder", "run")),
            "model": {
                "model_name_or_path": str(models.get(task)),
                "task": task,
                **sections.pop("model", {}),
            },
            "data": {"train": source, "test_split": 0.25, "max_length": 32, **sections.pop("data", {})},
            "train": {
                "max_steps": 30,
                "train_batch_size": 16,
                "learning_rate": 1e-2,
                **sections.pop("train", {}),
            },
            "hardware": {"device": "cpu"},
            **sections,
        }
        recipe = check(raw, source="tiny")
        file = tmp_path / "recipe.yaml"
        file.write_text(json.dumps(raw))
        specs = runs_of(recipe, offline=True)
        assert len(specs) == expect
        for spec in specs:
            AcceleratorState._reset_state(reset_partial_state=True)
            PartialState._reset_state()
            prepare(spec, file)
            ACTIONS["train"](spec.plan, spec.layout, False)
        return specs[-1].layout

    return execute


def scores(layout: RunLayout) -> dict[str, float]:
    rows = [json.loads(line) for line in layout.measurements.read_text().splitlines()]
    return {f"{r['suite']} {r['arm']} {r['metric']}": r["value"] for r in rows}


def logged(layout: RunLayout) -> list[float]:
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]


def test_rows_are_tokenized_once_and_again_when_they_change(
    run: Run, models: dict[str, Path], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    shutil.copy(models["rows"], rows)
    data = {"train": {"path": str(rows), **COLUMNS["causal-lm"]}}
    layout = run("causal-lm", strategy=LORA, data=data, train={"max_steps": 1})
    (kept,) = (layout.examples / "train").glob("*/tokens")
    made = kept.stat().st_ino
    layout.done.unlink()
    run("causal-lm", strategy=LORA, data=data, train={"max_steps": 1})
    assert kept.stat().st_ino == made
    with rows.open("a") as file:
        file.write(rows.read_text().splitlines()[0] + "\n")
    plan = read_plan(layout.plan)
    ACTIONS["evaluate"](plan, layout, False)
    assert kept.stat().st_ino != made
    said = [e["text"] for e in map(json.loads, layout.events.read_text().splitlines()) if "text" in e]
    assert any(f"changed since this run began, so its rows are read anew: {rows}" in text for text in said)


def test_packed_rows_train_as_their_texts_do(run: Run) -> None:
    # one step over all rows, so that both see the same texts in every step
    train = {"train_batch_size": 64, "max_steps": 6, "logging_steps": 1}
    plain = run("causal-lm", strategy=LORA, train=train, folder="plain")
    rows = run("causal-lm", strategy=LORA, train=train, folder="packed", data={"packing": True})
    said = [e for e in map(json.loads, rows.events.read_text().splitlines()) if e["event"] == "stage"]
    assert said[0]["examples"] == 24
    assert logged(rows) == pytest.approx(logged(plain), rel=1e-5)


def manifest(layout: RunLayout) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((layout.adapter / "manifest.json").read_text())
    return content


@pytest.mark.parametrize(
    ("task", "strategy", "kind"),
    [
        ("causal-lm", LORA, "adapter"),
        ("causal-lm", {"kind": "full"}, "checkpoint"),
        ("causal-lm", {"kind": "partial", "last_layers": 1}, "checkpoint"),
        ("causal-lm", {"kind": "peft", "method": "ia3"}, "adapter"),
        ("causal-lm", {"kind": "peft", "method": "adalora", "init_r": 6, "target_r": 4}, "adapter"),
        ("causal-lm", {"kind": "peft", "method": "prompt_tuning", "num_virtual_tokens": 4}, "adapter"),
        ("causal-lm", {"kind": "peft", "method": "prefix_tuning", "num_virtual_tokens": 4}, "adapter"),
        ("causal-lm", {**LORA, "use_dora": True}, "adapter"),
        ("sequence-classification", LORA, "adapter"),
        ("sequence-classification", {**LORA, "head": "pooled"}, "adapter"),
        ("sequence-classification", {"kind": "full"}, "checkpoint"),
        ("sequence-classification", {"kind": "features"}, "head"),
        ("sequence-classification", {"kind": "features", "hidden": 8}, "head"),
        ("image-classification", {"kind": "features"}, "head"),
        ("image-classification", {"kind": "partial", "last_layers": 1}, "checkpoint"),
        ("sentence-embedding", LORA, "adapter"),
        ("sentence-embedding", {"kind": "full"}, "checkpoint"),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(str(x) for x in v.values())[:30],
)  # fmt: skip
def test_every_task_and_strategy_learns_and_verifies(
    run: Run, task: str, strategy: dict[str, Any], kind: str
) -> None:
    # What moves few numbers over a random base needs larger steps.
    few = ("ia3", "prompt_tuning", "prefix_tuning", "features")
    rate = 0.1 if {strategy["kind"], strategy.get("method")} & set(few) else 1e-2
    layout = run(task, strategy=strategy, train={"learning_rate": rate})
    assert manifest(layout)["kind"] == kind
    found = scores(layout)
    if task == "causal-lm":
        assert found["target tuned nll"] < found["target base nll"] - 0.02
    else:
        assert found["target tuned accuracy"] > found["target base accuracy"]
    with redirect_stdout(io.StringIO()):
        ACTIONS["verify"](runs_plan(layout), layout, False)
    ACTIONS["evaluate"](runs_plan(layout), layout, False)
    for name, value in scores(layout).items():
        assert value == pytest.approx(found[name], rel=1e-5, abs=1e-6), name


def runs_plan(layout: RunLayout) -> Any:
    from tlscale.planning.compile import read_plan

    return read_plan(layout.plan)


def test_no_training_scores_the_base_alone(run: Run) -> None:
    layout = run("sequence-classification", strategy={"kind": "none"})
    assert set(scores(layout)) == {"target base accuracy", "target base f1_macro"}
    assert layout.done.is_file()
    assert not layout.adapter.exists()


def test_stages_chain_with_what_came_before(run: Run, models: dict[str, Path]) -> None:
    raw = {"path": str(models["more"]), "text": "text"}
    layout = run(
        "causal-lm",
        strategy=None,
        stages=[
            {"name": "read", "strategy": {"kind": "full"}, "data": raw, "train": {"max_steps": 5}},
            {"name": "adapt", "strategy": LORA, "train": {"max_steps": 5}},
            {"name": "go-on", "strategy": LORA, "train": {"max_steps": 5}},
            {"name": "merge-and-tune", "strategy": {"kind": "full"}, "train": {"max_steps": 5}},
        ],
    )
    kinds = [
        json.loads((layout.artifact(n) / "manifest.json").read_text())["kind"]
        for n in ("read", "adapt", "go-on", "merge-and-tune")
    ]
    assert kinds == ["checkpoint", "adapter", "adapter", "checkpoint"]
    config = json.loads((layout.artifact("go-on") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith("stages/read")
    found = scores(layout)
    assert found["target tuned nll"] < found["target base nll"]


def test_seeds_repeat_on_the_same_items(run: Run) -> None:
    layout = run("causal-lm", strategy=LORA, seeds=[1, 2], expect=2, train={"max_steps": 3})
    assert layout.root.name == "seed-2"
    other = RunLayout(layout.root.parent / "seed-1")
    mine, theirs = (
        [json.loads(line) for line in (x.outcomes("tuned", "target")).read_text().splitlines()]
        for x in (layout, other)
    )
    assert [o["where"] for o in mine] == [o["where"] for o in theirs]
    assert [o["nll"] for o in mine] != [o["nll"] for o in theirs]


def test_same_seed_same_result(run: Run) -> None:
    first = run("causal-lm", strategy={**LORA, "lora_dropout": 0.1}, folder="a", train={"max_steps": 5})
    second = run("causal-lm", strategy={**LORA, "lora_dropout": 0.1}, folder="b", train={"max_steps": 5})
    assert scores(first) == scores(second)


def test_exact_match_generates_answers(run: Run) -> None:
    layout = run(
        "causal-lm",
        strategy={"kind": "full"},
        evaluate={"target": ["nll", "exact_match"], "max_new_tokens": 3},
        train={"max_steps": 120},
    )
    found = scores(layout)
    assert found["target base exact_match"] < 0.5 < found["target tuned exact_match"]


def test_evaluation_inside_training_early_stopping_and_trackers(run: Run) -> None:
    layout = run(
        "sequence-classification",
        strategy=LORA,
        data={"validation_split": 0.25},
        train={
            "max_steps": 400,
            "eval_steps": 2,
            "early_stopping_patience": 2,
            "learning_rate": 0.1,
            "report_to": ["tensorboard"],
        },
    )
    events = [json.loads(line) for line in layout.events.read_text().splitlines()]
    trained = next(e for e in events if e["event"] == "trained")
    assert trained["stopped_early"]
    assert trained["steps"] < 400
    assert any(e["event"] == "validated" for e in events)
    assert list(layout.trackers.rglob("events.out.tfevents.*"))


def test_gradient_checkpointing_trains_the_same_adapter(run: Run) -> None:
    plain = run("causal-lm", strategy=LORA, folder="a", train={"max_steps": 5})
    checkpointed = run(
        "causal-lm", strategy=LORA, folder="b", train={"max_steps": 5, "gradient_checkpointing": True}
    )
    assert scores(checkpointed) == pytest.approx(scores(plain), rel=1e-5)


def test_bfloat16_trains(run: Run) -> None:
    layout = run("causal-lm", strategy=LORA, model={"dtype": "bfloat16"})
    found = scores(layout)
    assert found["target tuned nll"] < found["target base nll"] - 0.02


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8"])
def test_adapters_train_on_quantized_bases(run: Run, quantization: str) -> None:
    layout = run("causal-lm", strategy=LORA, model={"quantization": quantization})
    found = scores(layout)
    assert found["target tuned nll"] < found["target base nll"] - 0.02


def test_a_failure_keeps_what_was_done(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TlscaleError, match="the loss became"):
        run("causal-lm", strategy={"kind": "full"}, train={"learning_rate": 1e30, "max_grad_norm": 0.0})
    layout = RunLayout(tmp_path / "run")
    assert "target base nll" in scores(layout)
    assert not layout.done.exists()
    assert not layout.adapter.exists()


def test_the_models_config_can_be_set_and_a_misspelt_field_is_refused(run: Run) -> None:
    layout = run(
        "causal-lm",
        strategy={"kind": "full"},
        model={"config": {"attention_dropout": 0.5}},
        train={"max_steps": 3},
    )
    saved = json.loads((layout.adapter / "config.json").read_text())
    assert saved["attention_dropout"] == 0.5
    with pytest.raises(TlscaleError, match="did you mean attention_dropout"):
        run("causal-lm", strategy={"kind": "full"}, model={"config": {"atention_dropout": 0.5}}, folder="b")
