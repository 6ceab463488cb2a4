"""`tlscale probe` on real small encoders: the ranking, its file, and what can't be meant."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration import tiny
from tests.integration.outside import colours, tlscale

ROOT = Path(__file__).parents[2]


RECIPE = """\
version: 1
name: colours
model: {model_name_or_path: ./bert, task: sequence-classification}
data: {train: {path: rows.jsonl, text: text, label: label}, max_length: 32}
strategy: {kind: features}
hardware: {device: cpu}
"""


READS = """\
version: 1
name: reads
model: {model_name_or_path: "builtin:pico", task: causal-lm}
data:
  train: {path: "builtin:code-train.jsonl", text: text}
  test: {path: "builtin:code-test.jsonl", text: text}
  retention: {path: "builtin:prose-test.jsonl", text: text}
  max_length: 64
strategy: {kind: full}
hardware: {device: cpu}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = colours(tmp_path_factory.mktemp("probe"), RECIPE, rows=120)
    (made / "llama").mkdir()
    tiny.llama(made / "llama")
    (made / "reads.yaml").write_text(READS)
    return made


def test_ranks_layers_of_several_bases(folder: Path) -> None:
    done = tlscale(
        folder, "probe", "r.yaml", "--models", "./bert,./llama", "--layers", "--poolings", "mean,cls"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "runs/colours-probe/probe.json").read_text())
    sources = told["sources"]
    assert len(sources) == 2 * 3 * 2
    assert [s["scores"]["logme"] for s in sources] == sorted(
        (s["scores"]["logme"] for s in sources), reverse=True
    )
    best = sources[0]
    assert best["scores"]["linear"] > 0.9, "the mean of the words tells the colour that one of them names"
    assert best["pooling"] == "mean"
    assert best["logme_shuffled"] < best["scores"]["logme"]
    first_tokens = [s for s in sources if s["pooling"] == "cls" and s["layer"] == 0]
    assert all(s["scores"]["linear"] < 0.5 for s in first_tokens), "the first token is always the same"
    assert told["agreement"]["logme"] > 0.5
    assert all(one["c2st_p"] > 0.001 for one in told["shift"]), "both are drawn from the same rows"
    assert "rank agreement with linear" in done.stdout
    assert "told apart" in done.stdout
    again = tlscale(folder, "probe", "r.yaml", "--rows", "60", "--json")
    assert again.returncode == 0, again.stderr
    assert [(s["layer"], s["pooling"]) for s in json.loads(again.stdout)["sources"]] == [(2, "mean")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--poolings", "maen"], "did you mean mean?"),
        (["--models", "./two"], "./two"),
        (["--rows", "1"], "at least 2"),
    ],
    ids=["pooling", "model", "rows"],
)
def test_what_cannot_be_meant_leaves_nothing(folder: Path, arguments: list[str], said: str) -> None:
    done = tlscale(folder, "probe", "r.yaml", "output_dir=elsewhere", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (folder / "elsewhere-probe").exists()


def test_other_tasks_and_other_folders_are_refused(folder: Path) -> None:
    done = tlscale(
        folder, "probe", "r.yaml", "--layers", "model.task=causal-lm", "strategy={kind: full}",
        "data={train: {path: rows.jsonl, text: text}}",
    )  # fmt: skip
    assert done.returncode == 2
    assert "a causal-lm has none" in done.stderr
    (folder / "mine-probe").mkdir()
    (folder / "mine-probe" / "notes.txt").write_text("keep")
    done = tlscale(folder, "probe", "r.yaml", "output_dir=mine")
    assert done.returncode == 2
    assert "something else" in done.stderr
    assert [file.name for file in (folder / "mine-probe").iterdir()] == ["notes.txt"]


def test_ranks_blocks_by_their_gradients(folder: Path) -> None:
    done = tlscale(folder, "probe", "r.yaml", "--gradients", "--rows", "40")
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "runs/colours-probe/gradients.json").read_text())
    pulls = [block["pull"] for block in told["blocks"]]
    assert sorted(block["block"] for block in told["blocks"]) == [0, 1]
    assert pulls == sorted(pulls, reverse=True)
    assert told["strategy"] == {"kind": "partial", "blocks": [told["blocks"][0]["block"]]}
    assert f"strategy: {{kind: partial, blocks: [{told['blocks'][0]['block']}]}}" in done.stdout
    chosen = json.dumps(told["strategy"])
    plan = tlscale(folder, "plan", "r.yaml", f"strategy={chosen}", "--json")
    (stage,) = json.loads(plan.stdout)["stages"]
    trained = {d["name"] for d in stage["decisions"] if d["lr_scale"] is not None}
    assert all(f"layer.{told['blocks'][0]['block']}." in n or n.startswith("head.") for n in trained), (
        trained
    )
    refused = tlscale(folder, "probe", "r.yaml", "--gradients", "--layers")
    assert refused.returncode == 2
    assert "--layers: not with --gradients" in refused.stderr


def test_gradients_are_those_of_the_mean_loss(folder: Path) -> None:
    (folder / "lm.jsonl").write_text('{"text": "the car is red"}\n{"text": "the bird is what"}\n' * 3)
    (folder / "lm.yaml").write_text(
        "version: 1\nname: words\nmodel: {model_name_or_path: ./llama, task: causal-lm}\n"
        "data: {train: {path: lm.jsonl, text: text}, test: {path: lm.jsonl, text: text}, max_length: 16}\n"
        "strategy: {kind: full}\nhardware: {device: cpu}\n"
    )
    done = tlscale(folder, "probe", "lm.yaml", "--gradients", "--json")
    assert done.returncode == 0, done.stderr
    told = {block["block"]: block for block in json.loads(done.stdout)["blocks"]}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "llama").eval()
    tokens = AutoTokenizer.from_pretrained(folder / "llama")
    losses, squares = [], dict.fromkeys((0, 1), 0.0)
    for text in ["the car is red", "the bird is what"]:
        ids = torch.tensor([[*tokens(text).input_ids, tokens.eos_token_id]])
        loss = model(input_ids=ids, labels=ids).loss
        losses.append((loss, ids.shape[1] - 1))
        for block in squares:
            part = list(model.model.layers[block].parameters())
            squares[block] += sum(
                float(g.square().sum()) for g in torch.autograd.grad(loss, part, retain_graph=True)
            )
    whole = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
    mean = sum(squares.values()) / sum(p.numel() for p in model.model.layers.parameters())
    for block in squares:
        part = list(model.model.layers[block].parameters())
        slopes = torch.autograd.grad(whole, part, retain_graph=True)
        norm = sum(float(p.detach().square().sum()) for p in part) ** 0.5
        pull = sum(float(g.square().sum()) for g in slopes) ** 0.5 / norm
        assert told[block]["pull"] == pytest.approx(pull, rel=1e-4)
        size = sum(p.numel() for p in part)
        assert told[block]["fisher"] == pytest.approx(squares[block] / size / mean, rel=1e-4)


def test_language_models_are_ranked_by_how_well_they_read(folder: Path) -> None:
    done = tlscale(folder, "probe", "reads.yaml", "--models", "./llama,builtin:pico", "--rows", "40")
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "runs/reads-probe/probe.json").read_text())
    by = {(one["model"], one["role"]): one for one in told["readings"]}
    pico = {role: by["builtin:pico", role] for role in ("train", "test", "retention")}
    assert pico["retention"]["bits_per_byte"] < pico["train"]["bits_per_byte"] - 0.3, "it has read prose"
    assert abs(pico["test"]["bits_per_byte"] - pico["train"]["bits_per_byte"]) < 0.5
    assert done.stdout.index("builtin:pico  ") < done.stdout.index("./llama"), "an untrained model is last"
    apart = {one["to"]: one for one in told["shift"] if one["model"] == "builtin:pico"}
    assert apart["retention"]["c2st_p"] < 0.01, "prose is no code"
    assert apart["retention"]["a_distance"] > apart["test"]["a_distance"] + 0.5


def test_bits_a_byte_count_the_text_that_was_scored(folder: Path) -> None:
    """By hand: the sum of -log2 p over the tokens, by the bytes of what they stand for."""
    (folder / "one.jsonl").write_text(json.dumps({"text": "def add(one, other):\n    return one"}) + "\n")
    done = tlscale(
        folder, "probe", "reads.yaml", "--json", "output_dir=runs/one",
        "--rows", "20", "data.train={path: one.jsonl, text: text}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (read,) = [one for one in told["readings"] if one["role"] == "train"]
    assert not told["shift"], "one text is no sample"
    pico = AutoModelForCausalLM.from_pretrained(ROOT / "tlscale/assets/pico")
    tokens = AutoTokenizer.from_pretrained(ROOT / "tlscale/assets/pico")
    ids = torch.tensor([read_ids(tokens, "def add(one, other):\n    return one", read["tokens"])])
    with torch.no_grad():
        logs = pico(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
    expected = -float(logs.sum()) / math.log(2) / len(tokens.decode(ids[0, 1:], skip_special_tokens=True))
    assert read["bits_per_byte"] == pytest.approx(expected, rel=1e-4)


def read_ids(tokens: Any, text: str, scored: int) -> list[int]:
    """The ids of `text`, with its end where one more token was scored than the text alone has."""
    ids = list(tokens(text).input_ids)
    return ids if len(ids) == scored + 1 else [*ids, tokens.eos_token_id]
