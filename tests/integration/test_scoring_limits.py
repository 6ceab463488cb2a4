"""Memory that runs out, adapters, and two real processes: the same scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from tests.integration.scoring_kit import FAMILIES, model, plain, tokenizer
from tests.integration.test_scoring_models import SHOTS, numbers, requests
from tlscale.errors import DoesNotFitError
from tlscale.evaluation.requests import Choices, Generation
from tlscale.evaluation.scoring.scorer import ModelScorer

# peft reads an attribute that transformers has deprecated
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ROOT = Path(__file__).resolve().parents[2]


class Small(torch.nn.Module):
    """A model whose device holds a limited number of tokens."""

    def __init__(self, inner: Any, most: int) -> None:
        super().__init__()
        self.inner, self.config, self.most = inner, inner.config, most

    def forward(self, input_ids: Any, logits_to_keep: Any = 0, **rest: Any) -> Any:
        if input_ids.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(input_ids=input_ids, logits_to_keep=logits_to_keep, **rest)


def test_nothing_is_lost_when_memory_runs_out() -> None:
    whole = dict(ModelScorer(model("llama"), tokenizer()).score(requests()))
    notes: list[str] = []
    # the comparison with the plain computation needs a whole path at once
    small = ModelScorer(Small(model("llama"), 520), tokenizer(), budget=900, note=notes.append)
    found = dict(small.score(requests()))
    np.testing.assert_allclose(
        numbers([found[i] for i in range(11)]), numbers([whole[i] for i in range(11)]), atol=1e-4
    )
    assert notes == ["memory ran out: from here on 450 tokens a pass"]


def test_fewer_texts_at_a_time_give_the_same_texts() -> None:
    asked = [Generation(str(i), f"{SHOTS}{i} Q: they do be to go", (), 6) for i in range(12)]
    whole = dict(ModelScorer(model("llama"), tokenizer(), budget=512).score(asked))
    notes: list[str] = []
    small = ModelScorer(Small(model("llama"), 130), tokenizer(), budget=512, note=notes.append)
    assert dict(small.score(asked)) == whole
    assert notes[0] == "memory ran out: from here on 8 texts at a time"
    with pytest.raises(DoesNotFitError, match="on a single text"):
        dict(ModelScorer(Small(model("llama"), 40), tokenizer()).score(asked))


SHORT = """
import json, resource, sys
import torch
from tests.integration.scoring_kit import tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from tlscale.evaluation.requests import Choices
from tlscale.evaluation.scoring.scorer import ModelScorer
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(
    hidden_size=32, intermediate_size=8192, num_hidden_layers=2, num_attention_heads=2, vocab_size=300,
    max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
)).eval()
asked = [Choices(str(i), "the " + "ab" * (i % 7) + str(i), (" to rest", " able to go")) for i in range(600)]
notes = []
scorer = ModelScorer(model, tokenizer(), budget=8192, note=notes.append)
list(scorer.score(asked[:2]))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
if sys.argv[1] != "all":
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 1_000_000,) * 2)
found = [result.logprobs for _, result in sorted(scorer.score(asked))]
print(json.dumps([notes, found]))
"""


def test_the_machines_own_memory_runs_out_and_nothing_is_lost() -> None:
    def said(megabytes: str) -> Any:
        command = [sys.executable, "-W", "ignore", "-c", SHORT, megabytes]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])

    (nothing, whole), (notes, found) = said("all"), said("400")
    assert nothing == []
    assert notes[0].startswith("memory ran out: from here on 4096 tokens a pass")
    assert len(found) == 600
    np.testing.assert_allclose(found, whole, atol=1e-4)


def test_a_finished_text_makes_room_for_the_next_prompt() -> None:
    def alone(request: Generation) -> Any:
        return next(ModelScorer(model("llama"), tokenizer()).score([request]))[1]

    # one that goes on to its limit, and comes first
    tried = (Generation("long", f"{SHOTS}!{'a' * at} Q: they", (), 40) for at in range(50))
    long = next(request for request in tried if alone(request).tokens == 40)
    asked = [long, *(Generation(str(at), f"{SHOTS}{at} Q: they", (), 3) for at in range(1, 9))]
    ended = [
        (asked[at].item, result)
        for at, result in ModelScorer(model("llama"), tokenizer(), budget=64).score(asked)
    ]
    # two at a time: were the batch not refilled, it would end before the third text has begun
    assert ended[-1][0] == "long"
    assert dict(ended) == {request.item: alone(request) for request in asked}


def test_an_adapter_is_scored_as_it_is() -> None:
    asked = [r for r in requests() if isinstance(r, Choices)]
    base = FAMILIES["llama"]()
    base.load_state_dict(model("llama").state_dict())
    adapted = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    notes: list[str] = []
    scorer = ModelScorer(adapted, tokenizer(), note=notes.append)
    found = dict(scorer.score(asked))
    pairs = [(r.context, option) for r in asked for option in r.options]
    expected = plain(adapted, scorer.cutter.pairs(pairs))
    np.testing.assert_allclose(np.concatenate([found[i].logprobs for i in range(7)]), expected, atol=1e-4)
    assert not notes
    assert abs(expected - plain(model("llama"), scorer.cutter.pairs(pairs))).max() > 0.01


def test_virtual_tokens_of_prompt_tuning_are_computed_plainly() -> None:
    asked = [r for r in requests() if isinstance(r, Choices)][:3]
    base = FAMILIES["gpt2"]()
    tuned = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    notes: list[str] = []
    found = dict(ModelScorer(tuned, tokenizer(), note=notes.append).score(asked))
    assert "computed by itself" in notes[0]
    assert all(np.isfinite(found[i].logprobs).all() for i in range(3))


PROGRAM = """
import json, sys, torch.distributed as dist
from tests.integration.scoring_kit import model, tokenizer
from tests.integration.test_scoring_models import requests
from tlscale.evaluation.scoring.scorer import ModelScorer, Share
rank, world, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def collect(rows):
    if world == 1: return rows
    found = [None] * world
    dist.all_gather_object(found, rows)
    return [row for part in found for row in part]
if world > 1: dist.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=world)
share = Share(rank, world, collect)
scorer = ModelScorer(model("llama"), tokenizer(), budget=40, share=share)
print(json.dumps([repr(result) for _, result in sorted(scorer.score(requests()))]))
"""


def test_two_processes_give_what_one_gives_to_the_last_digit(tmp_path: Path) -> None:
    def started(rank: int, world: int) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            PROGRAM,
            str(rank),
            str(world),
            str(tmp_path / "meet"),
        ]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    processes = [started(0, 1), started(0, 2), started(1, 2)]
    said = [json.loads(process.communicate(timeout=300)[0].splitlines()[-1]) for process in processes]
    assert said[0] == said[1] == said[2]
