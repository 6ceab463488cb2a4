"""Masked language models: trained, saved, gone on with, filled in, and the base of what comes after."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.integration import tiny
from tests.integration.test_worker_runs import LORA, Run, logged, manifest, models, run, scores
from tlscale.data.types import Example
from tlscale.errors import PlanError, UsageError
from tlscale.models.load import load_processor
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout
from tlscale.worker.hiding import judged, varied
from tlscale.worker.run import ACTIONS

__all__ = ["models", "run"]

FULL = {"kind": "full"}


def act(action: str, layout: RunLayout, as_json: bool = False, **request: Any) -> str:
    said = io.StringIO()
    with redirect_stdout(said):
        ACTIONS[action](
            read_plan(layout.plan), layout, as_json, *([json.dumps(request)] if request else [])
        )
    return said.getvalue()


def load_processor_of(layout: RunLayout) -> Any:
    plan = read_plan(layout.plan)
    return load_processor(plan.recipe.model, plan.facts)


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        (FULL, "checkpoint"),
        ({"kind": "partial", "last_layers": 1}, "checkpoint"),
        (LORA, "adapter"),
        ({**LORA, "use_dora": True}, "adapter"),
    ],
    ids=["full", "partial", "lora", "dora"],
)
def test_hidden_tokens_are_learned_and_the_result_verifies(
    run: Run, strategy: dict[str, Any], kind: str
) -> None:
    layout = run("masked-lm", strategy=strategy)
    assert manifest(layout)["kind"] == kind
    found = scores(layout)
    assert found["target tuned nll"] < found["target base nll"] - 0.2
    assert found["target tuned token_accuracy"] > found["target base token_accuracy"]
    sides = [
        [json.loads(line) for line in layout.outcomes(arm, "target").read_text().splitlines()]
        for arm in ("base", "tuned")
    ]
    assert [o["where"] for o in sides[0]] == [o["where"] for o in sides[1]]
    assert [o["tokens"] for o in sides[0]] == [o["tokens"] for o in sides[1]]
    act("verify", layout)
    act("evaluate", layout)
    assert scores(layout) == pytest.approx(found, rel=1e-5, abs=1e-6), "the same tokens are hidden again"


def test_a_new_head_is_trained_and_said_but_not_around_an_adapter(
    run: Run, models: dict[str, Path]
) -> None:
    bare = {"model_name_or_path": str(models["encoder"])}
    layout = run("masked-lm", strategy=FULL, model=bare)
    assert any("a new one is trained, over the input embedding" in n for n in read_plan(layout.plan).notes)
    found = scores(layout)
    assert found["target tuned nll"] < found["target base nll"] - 0.3
    weights = load_file(layout.adapter / "model.safetensors")
    assert "cls.predictions.transform.dense.weight" in weights
    assert "cls.predictions.decoder.weight" not in weights, "shared with the input embedding"
    with pytest.raises(PlanError, match="no head for hidden tokens, and an adapter would train around a"):
        run("masked-lm", strategy=LORA, model=bare, folder="refused")
    virtual = {"kind": "peft", "method": "prompt_tuning", "num_virtual_tokens": 2}
    with pytest.raises(PlanError, match=r"strategy\.method: PEFT knows virtual tokens"):
        run("masked-lm", strategy=virtual, folder="refused")
    with pytest.raises(PlanError, match=r"data\.masking: only a masked language model has tokens hidden"):
        run("causal-lm", strategy=LORA, data={"masking": {"rate": 0.2}}, folder="refused")


def test_a_run_that_goes_on_has_the_same_tokens_hidden(run: Run) -> None:
    train = {"max_steps": 12, "save_steps": 6, "logging_steps": 1}
    layout = run("masked-lm", strategy=FULL, train=train)
    before = logged(layout)
    assert len({round(loss, 4) for loss in before}) == 12
    kept = scores(layout)
    plan, tokenizer = read_plan(layout.plan), load_processor_of(layout)
    row = Example(where="x", tokens=[2, 7, 8, 9, 3], loss=[False, True, True, True, False])
    seeds = [plan.model_copy(update={"seed": seed}) for seed in range(8)]
    scored = [judged(one, tokenizer, {"retention": [row], "train": [row]}) for one in seeds]
    assert len({tuple(one["retention"][0].shown or ()) for one in scored}) == 1, "of every seed"
    assert scored[0]["retention"][0].shown is not None
    assert scored[0]["train"][0].shown is None
    assert len({tuple(varied(one, tokenizer)(row, 0, 0).shown or ()) for one in seeds}) > 2
    layout.done.unlink()
    layout.measurements.unlink()
    shutil.rmtree(layout.artifact("train"))
    newest = sorted(layout.checkpoints("train").glob("step-*"))[-1]
    shutil.rmtree(newest)
    run("masked-lm", strategy=FULL, train=train)
    assert logged(layout) == [*before, *before[6:]]
    assert scores(layout) == kept


def test_terms_beside_the_loss_see_hidden_tokens_too(run: Run, models: dict[str, Path]) -> None:
    other = {"path": str(models["more"]), "text": "prompt"}
    layout = run(
        "masked-lm",
        strategy=LORA,
        data={"replay": other, "retention": other, "masking": {"rate": 0.3}},
        train={"objective": {"replay": {}, "kl_to_base": {"weight": 0.1}, "ewc": {"rows": 8}}},
    )
    found = scores(layout)
    assert found["retention tuned nll"] < found["retention base nll"] - 0.1


def test_masks_are_filled_in(run: Run) -> None:
    layout = run("masked-lm", strategy=FULL, train={"max_steps": 60})
    (line,) = act("predict", layout, True, text="the {mask} is [MASK]").splitlines()
    found = json.loads(line)
    assert len(found["masks"]) == 2
    assert [len(best) for best in found["masks"]] == [3, 3]
    first, second = (best[0]["token"] for best in found["masks"])
    assert found["completion"] == f"the {first} is {second}"
    with pytest.raises(UsageError, match=r"the input: nothing to fill in; write \{mask\} or \[MASK\]"):
        act("predict", layout, text="the apple is red")


def test_an_encoder_that_read_on_is_the_base_of_a_classifier(run: Run) -> None:
    read = run("masked-lm", strategy=FULL, folder="read")
    kept = load_file(read.adapter / "model.safetensors")
    base = {"model_name_or_path": str(read.adapter)}
    rules = [{"pattern": r"(embeddings|encoder\.layer\.0)\..*", "lr_scale": None}]
    rules.append({"pattern": ".*", "lr_scale": 1.0})
    layout = run(
        "sequence-classification", model=base, strategy={"kind": "partial", "rules": rules},
        folder="classify",
    )  # fmt: skip
    (note,) = [n for n in read_plan(layout.plan).notes if "left out" in n]
    assert "sequence-classification has no use for it: cls.predictions.bias" in note
    made = load_file(layout.adapter / "model.safetensors")
    first = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(made[first], kept[first])
    assert not any(name.startswith("cls.") for name in made)
    found = scores(layout)
    assert found["target tuned accuracy"] > found["target base accuracy"]


def test_an_adapter_that_read_on_is_merged_first(run: Run, tmp_path: Path) -> None:
    read = run("masked-lm", strategy=LORA, folder="read")
    act("merge", read, output=str(tmp_path / "merged"))
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert "cls.predictions.transform.dense.weight" in merged
    layout = run(
        "sequence-classification", model={"model_name_or_path": str(tmp_path / "merged")},
        strategy={"kind": "features"}, train={"learning_rate": 0.1}, folder="classify",
    )  # fmt: skip
    assert manifest(layout)["kind"] == "head"


def test_a_small_bert_with_the_real_vocabulary_reads_shakespeare(
    run: Run, data_root: Path, tmp_path: Path
) -> None:
    words = data_root / "vocabularies" / "bert-base-uncased-vocab.txt"
    model = tiny.masked_bert(tmp_path / "bert", vocabulary=words)
    text = {"path": str(data_root / "tinyshakespeare" / "input.txt"), "text": "text", "document": "file"}
    layout = run(
        "masked-lm",
        strategy=FULL,
        model={"model_name_or_path": str(model)},
        data={
            "train": {**text, "span": [0.0, 0.05]},
            "test": {**text, "span": [0.97, 0.98]},
            "test_split": 0.0,
            "masking": {"whole_words": True},
        },
        train={"max_steps": 40},
    )
    assert len(read_plan(layout.plan).facts.tensors) == 42
    found = scores(layout)
    # at first as good as chance: the logarithm of 30,522 pieces
    assert found["target base nll"] == pytest.approx(10.3, abs=0.1)
    assert found["target tuned nll"] < 8.0


TASK = """\
task: colours
kind: classification
test: {{path: {path}}}
prompt: "{{text}} : what colour ?"
text: text
answer: word
labels: [apple, car, house, shirt]
"""


def test_words_in_a_pattern_are_learned_and_a_predictor_of_tasks_answers_alike(
    run: Run, models: dict[str, Path], tmp_path: Path
) -> None:
    words = {"red": "apple", "green": "car", "blue": "house", "black": "shirt"}
    pattern = {"prompt": "{text} : what colour ? {mask} ."}
    rows = [json.loads(line) for line in models["more"].read_text().splitlines()]
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps({**row, "word": words[row["label"]]}) + "\n" for row in rows))
    (tmp_path / "colours.yaml").write_text(TASK.format(path=held))
    layout = run(
        "masked-lm",
        strategy=FULL,
        data={
            "train": {"path": str(models["rows"]), **pattern, "completion": "label", "words": words},
            "test": {"path": str(held), **pattern, "completion": "word"},
            "unlabelled": {"path": str(models["more"]), "text": "text"},
        },
        train={"max_steps": 60, "objective": {"pet": {"mlm": 0.01}}},
        evaluate={"target": ["accuracy", "nll"], "tasks": [str(tmp_path / "colours.yaml")]},
    )
    found = scores(layout)
    assert found["target base accuracy"] < 0.6 < 0.9 < found["target tuned accuracy"]
    for arm in ("base", "tuned"):
        ours, theirs = (
            [json.loads(row) for row in layout.outcomes(arm, suite).read_text().splitlines()]
            for suite in ("target", "colours")
        )
        assert [row["prediction"] for row in ours] == [row["prediction"] for row in theirs]
        assert found[f"colours {arm} acc"] == found[f"target {arm} accuracy"]
    with pytest.raises(PlanError, match=r"pet\.mlm: needs texts without labels; give data\.unlabelled"):
        run("masked-lm", strategy=FULL, train={"objective": {"pet": {}}}, folder="refused")
    with pytest.raises(PlanError, match=r"objective\.pet: is about words in a mask's place"):
        run("causal-lm", strategy=FULL, train={"objective": {"pet": {"mlm": 0}}}, folder="refused")
    with pytest.raises(PlanError, match="accuracy is of words in a pattern's mask, and"):
        run("masked-lm", strategy=FULL, evaluate={"target": ["accuracy"]}, folder="refused")
