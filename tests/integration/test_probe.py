"""`tlscale probe` on real small encoders: the ranking, its file, and what can't be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = colours(tmp_path_factory.mktemp("probe"), RECIPE, rows=120)
    (made / "llama").mkdir()
    tiny.llama(made / "llama")
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
    done = tlscale(folder, "probe", "r.yaml", "model.task=causal-lm", "strategy={kind: full}")
    assert done.returncode == 2
    assert "probes need labelled rows" in done.stderr
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
