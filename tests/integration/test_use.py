"""`tlscale merge` and `tlscale predict` on finished runs of tiny models: every task, form and refusal."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer, ViTConfig, ViTImageProcessor, ViTModel

from tests.integration import tiny
from tlscale.cli import main
from tlscale.errors import TlscaleError, UsageError, VerificationError
from tlscale.outer.repeat import prepare, runs_of
from tlscale.planning.compile import read_plan
from tlscale.recipe.load import check
from tlscale.runs.layout import RunLayout
from tlscale.worker.run import ACTIONS

LORA = {"kind": "peft", "method": "lora", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
PROMPTS = {"kind": "peft", "method": "prompt_tuning", "num_virtual_tokens": 2}
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %} "
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)
Made = Callable[..., RunLayout]


def fresh() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Finished runs, each made once; they are only read."""
    root = tmp_path_factory.mktemp("use")
    models = {
        "causal-lm": tiny.llama(root / "llama"),
        "sequence-classification": tiny.bert(root / "bert"),
        "sentence-embedding": root / "bert",
        "image-classification": tiny.vit(root / "vit"),
    }
    rows, pictures = tiny.sentences(root / "rows.jsonl", 64), tiny.pictures(root / "pictures.npz")
    columns = {
        "causal-lm": {"prompt": "prompt", "completion": "completion"},
        "sequence-classification": {"text": "text", "label": "label"},
        "sentence-embedding": {"anchor": "anchor", "positive": "positive"},
        "image-classification": {"image": "images", "label": "labels"},
    }
    known: dict[str, RunLayout] = {}

    def make(name: str, task: str, strategy: dict[str, Any] | None, **sections: Any) -> RunLayout:
        if name in known:
            return known[name]
        path = pictures if task == "image-classification" else rows
        source = sections.pop("source", {"path": str(path), **columns[task]})
        raw: dict[str, Any] = {
            "version": 1,
            "name": name,
            "output_dir": str(root / "runs" / name),
            "model": {"model_name_or_path": str(models[task]), "task": task, **sections.pop("model", {})},
            "data": {"train": source, "test_split": 0.25, "max_length": 32},
            "strategy": strategy,
            "stages": sections.pop("stages", []),
            "train": {"max_steps": 100, "train_batch_size": 16, "learning_rate": 1e-2,
                      "per_device_eval_batch_size": 3, **sections.pop("train", {})},
            "hardware": {"device": "cpu"},
        }  # fmt: skip
        (spec,) = runs_of(check(raw, source=name), offline=True)
        file = root / f"{name}.yaml"
        file.write_text(json.dumps(raw))
        fresh()
        prepare(spec, file)
        ACTIONS["train"](spec.plan, spec.layout, False)
        known[name] = spec.layout
        return spec.layout

    return make


def act(action: str, layout: RunLayout, *, as_json: bool = False, **request: Any) -> None:
    fresh()
    ACTIONS[action](read_plan(layout.plan), layout, as_json, json.dumps(request))


def answers(capsys: pytest.CaptureFixture[str], layout: RunLayout, **request: Any) -> list[dict[str, Any]]:
    capsys.readouterr()
    act("predict", layout, as_json=True, **request)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def language(made: Made) -> RunLayout:
    return made("language", "causal-lm", LORA, train={"max_steps": 150})


def test_a_language_model_goes_on_in_order_and_batches_change_nothing(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = language(made)
    things = ["apple", "car", "the river", "a red stone is", "house", "door", "bird"]
    prompts = [f"the {thing} is {tiny.COLOURS[i % 4]} : what colour ?" for i, thing in enumerate(things)]
    file = tmp_path / "asked.csv"
    file.write_text("id,prompt\n" + "".join(f"{i},{p}\n" for i, p in enumerate(prompts)))
    found = answers(capsys, layout, file=str(file), max_new_tokens=3)
    assert [row["where"] for row in found] == [f"asked.csv:{i + 2}" for i in range(7)]
    said = [row["completion"].strip() for row in found]
    right = [tiny.COLOURS[i % 4] for i in range(7)]
    assert sum(a == b for a, b in zip(said, right, strict=True)) >= 5
    alone = [answers(capsys, layout, text=p, max_new_tokens=3)[0]["completion"] for p in prompts]
    assert [row["completion"] for row in found] == alone
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*prompts[:4], "", prompts[4]]) + "\n"))
    capsys.readouterr()
    act("predict", layout, max_new_tokens=3)
    assert capsys.readouterr().out.splitlines() == alone[:5]


def test_an_adapter_with_one_other_bit_is_not_used(made: Made, tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "copy")
    shutil.copytree(language(made).root, layout.root, symlinks=True)
    file = layout.adapter / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(VerificationError, match="is not the file that was saved"):
        act("predict", layout, text="hello")


def test_the_column_is_the_recipes_or_the_only_one_or_the_one_named(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = language(made)
    plain = tmp_path / "asked.txt"
    plain.write_text("the car is red : what colour ?\n\nthe car is blue : what colour ?\n")
    rows = tmp_path / "asked.jsonl"
    rows.write_text('{"a": 1, "b": "the car is red : what colour ?"}\n')
    (first, _), (named,) = (
        answers(capsys, layout, file=str(plain), max_new_tokens=2),
        answers(capsys, layout, file=str(rows), column="b", max_new_tokens=2),
    )
    assert first["completion"] == named["completion"]
    with pytest.raises(
        TlscaleError, match=r"no column 'prompt'.*columns there: a, b; name one with --column"
    ):
        act("predict", layout, file=str(rows))
    with pytest.raises(TlscaleError, match="no column 'c'"):
        act("predict", layout, file=str(rows), column="c")
    with pytest.raises(TlscaleError, match=r"asked.jsonl:1: the input is empty or no text"):
        act("predict", layout, file=str(rows), column="a")
    with pytest.raises(TlscaleError, match=r"no such file; did you mean asked\.txt"):
        act("predict", layout, file=str(tmp_path / "askd.txt"))


def test_an_overlong_prompt_loses_its_beginning_with_a_word(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    act("predict", language(made), text="the car is red " * 50, max_new_tokens=2)
    assert "the input: 201 tokens, the last 32 were kept" in capsys.readouterr().err


def test_a_prompt_near_the_limit_does_not_shorten_its_neighbours(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = made("zero-lm", "causal-lm", {"kind": "none"})
    prompts = ["the car is red " * 15, "the car is red : what"]
    (tmp_path / "asked.txt").write_text("\n".join(prompts))
    found = answers(capsys, layout, file=str(tmp_path / "asked.txt"), max_new_tokens=8)
    for prompt, together in zip(prompts, found, strict=True):
        (alone,) = answers(capsys, layout, text=prompt, max_new_tokens=8)
        assert alone["completion"] == together["completion"]
    assert len(found[0]["completion"].split()) < len(found[1]["completion"].split())


def test_prompts_of_several_lengths_go_together_behind_virtual_tokens(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = made("prompts", "causal-lm", PROMPTS, train={"max_steps": 2})
    prompts = ["the car is red : what colour ?", "the", "a red stone"]
    (tmp_path / "asked.txt").write_text("\n".join(prompts))
    found = answers(capsys, layout, file=str(tmp_path / "asked.txt"), max_new_tokens=4)
    for prompt, together in zip(prompts, found, strict=True):
        (alone,) = answers(capsys, layout, text=prompt, max_new_tokens=4)
        assert alone["completion"] == together["completion"]


def test_a_plan_for_many_gpus_is_used_by_one_process_on_the_cpu(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = language(made)
    (here,) = answers(capsys, layout, text="the car is red : what colour ?", max_new_tokens=2)
    plan = read_plan(layout.plan)
    far = plan.model_copy(
        update={"world": plan.world.model_copy(update={"device": "cuda", "processes": 8})}
    )
    fresh()
    request = json.dumps({"text": "the car is red : what colour ?", "max_new_tokens": 2})
    ACTIONS["predict"](far, layout, False, request)
    found = capsys.readouterr()
    assert found.out == here["completion"] + "\n"
    if not torch.cuda.is_available():
        assert "planned for a GPU" in found.err


def test_the_last_of_several_stages_is_used_with_what_came_before(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [
        {"name": "one", "strategy": LORA, "train": {"max_steps": 30}},
        {"name": "two", "strategy": {**LORA, "r": 2}, "train": {"max_steps": 60}},
    ]
    layout = made("chain", "causal-lm", None, stages=stages)
    (asked,) = answers(capsys, layout, text="the car is red : what colour ?", max_new_tokens=2)
    assert asked["completion"].split() == ["red"]
    act("merge", layout, as_json=True, output=str(tmp_path / "merged"))
    assert json.loads(capsys.readouterr().out)["drift"]["maximum"] < 1e-4
    manifest = json.loads((tmp_path / "merged" / "manifest.json").read_text())
    assert manifest["base"].endswith("stages/one-merged")


def test_chats_are_asked_through_their_template(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE)
    chats = tmp_path / "chats.jsonl"
    lines = [
        json.loads(line) for line in tiny.sentences(tmp_path / "rows.jsonl", 48).read_text().splitlines()
    ]
    chats.write_text("".join(
        json.dumps({"messages": [{"role": "user", "content": row["prompt"]},
                                 {"role": "assistant", "content": row["label"]}]}) + "\n"
        for row in lines
    ))  # fmt: skip
    layout = made(
        "chat", "causal-lm", {"kind": "full"}, source={"path": str(chats)},
        model={"chat_template": str(template)}, train={"max_steps": 120},
    )  # fmt: skip
    found = answers(capsys, layout, file=str(chats), max_new_tokens=4)
    right = [row["label"] for row in lines]
    assert sum(a["completion"].strip() == b for a, b in zip(found, right, strict=True)) > 40
    typed = answers(capsys, layout, text=lines[0]["prompt"], max_new_tokens=4)
    assert typed[0]["completion"] == found[0]["completion"]


@pytest.mark.parametrize("strategy", [LORA, {"kind": "features"}], ids=["adapter", "head"])
def test_classifiers_say_label_and_probability(
    made: Made, strategy: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rate = {"learning_rate": 0.1} if strategy["kind"] == "features" else {}
    layout = made(f"classes-{strategy['kind']}", "sequence-classification", strategy, train=rate)
    (found,) = answers(capsys, layout, text="the car is green")
    assert found["label"] == "green"
    assert [one["probability"] for one in found["top"]] == sorted(
        (one["probability"] for one in found["top"]), reverse=True
    )
    assert len(found["top"]) == 3
    act("predict", layout, text="the car is green")
    assert capsys.readouterr().out == f"green\t{found['probability']:.4f}\n"
    act("predict", layout, text="the car is green " * 20)
    assert "the input: 81 tokens, cut to 32" in capsys.readouterr().err


def test_a_base_without_training_answers_zero_shot_or_not_at_all(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = made("zero", "sequence-classification", {"kind": "none"})
    (found,) = answers(capsys, layout, text="the car is green")
    assert found["label"] in tiny.COLOURS
    assert 1 / 4 < found["probability"] < 1
    ViTModel(ViTConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                       image_size=8, patch_size=4)).save_pretrained(tmp_path)  # fmt: skip
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    images = made("zero-images", "image-classification", {"kind": "none"},
                  model={"model_name_or_path": str(tmp_path)})  # fmt: skip
    with pytest.raises(UsageError, match="no head for these labels"):
        act("predict", images, text="x.png")


def test_sentence_encoders_give_unit_vectors(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    layout = made("pairs", "sentence-embedding", LORA, train={"max_steps": 20})
    capsys.readouterr()
    act("predict", layout, text="a red car")
    vector = json.loads(capsys.readouterr().out)
    assert len(vector) == 32
    assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-5)


def test_images_are_taken_by_path(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = made("images", "image-classification", {"kind": "features"}, train={"learning_rate": 0.1})
    for name, level in (("dark", 40), ("bright", 220)):
        Image.fromarray(numpy.full((8, 8), level, dtype="uint8")).save(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("picture\ndark.png\nbright.png\n")
    found = answers(capsys, layout, file=str(tmp_path / "list.csv"))
    assert [row["label"] for row in found] == ["0", "1"]
    assert answers(capsys, layout, text=str(tmp_path / "dark.png"))[0]["label"] == "0"
    with pytest.raises(TlscaleError, match=r"no such file; did you mean dark\.png"):
        act("predict", layout, text=str(tmp_path / "darkk.png"))


def test_merged_is_an_ordinary_checkpoint_with_the_same_answers(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, target = language(made), tmp_path / "merged"
    (asked,) = answers(capsys, layout, text="the car is red : what colour ?", max_new_tokens=2)
    act("merge", layout, as_json=True, output=str(target))
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(target)
    assert 0 < said["drift"]["maximum"] < 1e-4
    assert 0 < said["drift"]["mean"] < said["drift"]["maximum"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(target), AutoTokenizer.from_pretrained(target)
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    given = tokenizer("the car is red : what colour ?", return_tensors="pt")
    made_ids = model.generate(**given, max_new_tokens=2, do_sample=False, pad_token_id=0)
    width = given["input_ids"].shape[1]
    assert tokenizer.decode(made_ids[0, width:], skip_special_tokens=True) == asked["completion"]
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["merged"]["max_drift"] == said["drift"]["maximum"]
    assert set(manifest["files"]) == {p.name for p in target.iterdir()} - {"manifest.json"}
    with pytest.raises(UsageError, match="exists"):
        act("merge", layout, output=str(target))
    assert not list(tmp_path.glob(".*partial"))


def test_a_quantized_base_is_explained_and_measured(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = made("nf4", "causal-lm", LORA, model={"quantization": "nf4"}, train={"max_steps": 20})
    capsys.readouterr()
    act("merge", layout, output=str(tmp_path / "merged"))
    text = capsys.readouterr().out
    assert "merged against adapter on the nf4 base" in text
    assert "merged against adapter on the base in float32" in text
    assert "Packed weights have no room" in text
    act("merge", layout, as_json=True, output=str(tmp_path / "again"))
    said = json.loads(capsys.readouterr().out)
    assert said["drift"]["maximum"] > 100 * said["rounding"]["maximum"]
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "quantization_config" not in config
    weights = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert {p.dtype for p in weights.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "task", "strategy", "said"),
    [
        ("chat-full", "causal-lm", {"kind": "full"}, "nothing to merge.*a full checkpoint"),
        ("classes-features", "sequence-classification", {"kind": "features"}, "merge.*a head over"),
        ("zero", "sequence-classification", {"kind": "none"}, "has left no result"),
        ("prompts", "causal-lm", PROMPTS, "no adapter that can be merged"),
    ],
)  # fmt: skip
def test_what_can_not_be_merged_is_refused(
    made: Made, tmp_path: Path, name: str, task: str, strategy: dict[str, Any], said: str
) -> None:
    layout = made(name, task, strategy, train={"max_steps": 2})
    with pytest.raises(UsageError, match=said):
        act("merge", layout, output=str(tmp_path / "merged"))
    assert not list(tmp_path.iterdir())


def test_the_commands_start_a_worker_and_refuse_before_one_is_needed(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    layout = language(made)
    asked = [
        "predict",
        str(layout.root),
        "the car is red : what colour ?",
        "--max-new-tokens",
        "2",
        "--json",
    ]
    capfd.readouterr()
    assert main(asked) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["where"] == "the input"
    for arguments, said in (
        (["predict", str(tmp_path)], "not a run directory"),
        (["predict", str(layout.root.parent.parent / "nothing")], "not a run directory"),
        (["predict", str(layout.root), "x", "--file", "y.txt"], "one of TEXT and --file"),
        (["predict", str(layout.root), "--file", str(tmp_path / "y.txt")], "no such file"),
        (["predict", str(layout.root), "x", "--column", "text"], "--column"),
        (["merge", str(layout.root), "--output", str(tmp_path)], "exists"),
    ):
        assert main(arguments) == 2, arguments
        assert said in capfd.readouterr().err
