"""Adapters of the tasks' own: trained together, saved apart; with one task equal to plain LoRA."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel

from tests.integration.test_multi_task_runs import data, learned
from tests.integration.test_worker_runs import LORA, Run, logged, models, run
from tlscale.cli import main
from tlscale.errors import UsageError
from tlscale.models import artifact
from tlscale.models.heads import PooledClassifier, pool
from tlscale.models.verify import saved_tensors, verify
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout
from tlscale.worker.run import ACTIONS

__all__ = ["data", "models", "run"]

POOLED = {**LORA, "lora_dropout": 0.1, "head": "pooled"}


def trained(run: Run, data: dict[str, Any], adapters: str, **train: Any) -> RunLayout:
    multi_task = {"adapters": adapters, "balance": train.pop("balance", "tasks")}
    return run(
        "sequence-classification", data=data, strategy=POOLED, folder=f"{adapters}-{len(train)}",
        train={"max_steps": 80, "multi_task": multi_task, **train},
    )  # fmt: skip


def loaded(layout: RunLayout) -> PooledClassifier:
    plan = read_plan(layout.plan)
    module = artifact.load(layout.adapter, model=plan.recipe.model, facts=plan.facts, world=plan.world)
    assert isinstance(module, PooledClassifier)
    return module


def asked(layout: RunLayout) -> dict[str, torch.Tensor]:
    return artifact.read_probe(layout.adapter)[0]


def by_peft(layout: RunLayout, models: dict[str, Path], active: list[str], **given: Any) -> torch.Tensor:
    """Pooled states of `given` by plain PEFT, with the adapters `active` switched on together."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers in a way that is going out
        base = AutoModel.from_pretrained(models["sequence-classification"])
        first, *others = active
        peft = PeftModel.from_pretrained(base, str(layout.adapter / first), adapter_name=first)
        for name in others:
            peft.load_adapter(str(layout.adapter / name), adapter_name=name)
        peft.base_model.set_adapter(active)
        made: Any = peft.eval()
        return pool(made(**given).last_hidden_state, given["attention_mask"], "mean")


def test_each_task_has_its_adapter(
    run: Run, data: dict[str, Any], models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    layout = trained(run, data, "per_task")
    learned(layout)
    manifest = artifact.read_manifest(layout.adapter)
    assert manifest["kind"] == "adapters"
    assert manifest["adapters"] == ["task_colour", "task_kind"]
    assert manifest["tasks"] == [["colour", 4], ["kind", 2]]
    (verified,) = [
        e for e in map(json.loads, layout.events.read_text().splitlines()) if e["event"] == "verified"
    ]
    assert (verified["moved"], verified["max_difference"]) == (verified["tensors"], 0.0)
    saved, unread = saved_tensors(layout.adapter)
    assert not unread
    assert sum(t.numel() for t in saved.values()) == read_plan(layout.plan).stages[0].trainable
    module = loaded(layout)

    given = asked(layout)
    found = module(**given).logits
    for name, first, end in (("task_colour", 0, 4), ("task_kind", 4, 6)):
        states = by_peft(layout, models, [name], **given)
        states = torch.nn.functional.normalize(states, dim=-1) * states.shape[-1] ** 0.5
        wanted = module.head(states)[:, first:end]
        torch.testing.assert_close(found[:, first:end], wanted, atol=1e-5, rtol=1e-5)

    capsys.readouterr()
    ACTIONS["predict"](read_plan(layout.plan), layout, False, '{"text": "a red car"}')
    colour, _, kind, sure = capsys.readouterr().out.split("\t")
    assert (colour.partition("/")[0], kind) == ("colour", "kind/car")
    assert float(sure) > 0.5
    assert main(["merge", str(layout.root)]) == 2
    assert "several adapters, which" in capsys.readouterr().err
    with pytest.raises(UsageError, match="several adapters"):
        ACTIONS["soup"](
            read_plan(layout.plan), layout, False, json.dumps({"output": str(layout.root / "s")})
        )


def test_a_row_answers_to_its_own_task(run: Run, data: dict[str, Any]) -> None:
    layout = trained(run, data, "per_task", max_steps=20)
    module, given = loaded(layout), asked(layout)
    rows = len(given["input_ids"])
    with torch.no_grad():
        every = module(**given).logits
        own = [module(**given, tasks=torch.full((rows,), task)).logits for task in (0, 1)]
        mixed = module(**given, tasks=torch.arange(rows) % 2).logits
        torch.testing.assert_close(every, torch.cat([own[0][:, :4], own[1][:, 4:]], dim=1))
        torch.testing.assert_close(mixed, torch.stack([own[row % 2][row] for row in range(rows)]))
        for name, parameter in module.named_parameters():
            if "lora_B.task_kind" in name:
                parameter.zero_()
        after = module(**given).logits
    torch.testing.assert_close(after[:, :4], every[:, :4], atol=0, rtol=0)
    assert (after[:, 4:] - every[:, 4:]).abs().max() > 1e-4


def test_beside_a_shared_one(run: Run, data: dict[str, Any], models: dict[str, Path]) -> None:
    layout = trained(run, data, "both", balance="pcgrad")
    learned(layout, colour=0.7)
    module, given = loaded(layout), asked(layout)
    with torch.no_grad():
        found = module(**given).logits
        states = by_peft(layout, models, ["shared", "task_kind"], **given)
        states = torch.nn.functional.normalize(states, dim=-1) * states.shape[-1] ** 0.5
        torch.testing.assert_close(found[:, 4:], module.head(states)[:, 4:], atol=1e-5, rtol=1e-5)
    saved, _ = saved_tensors(layout.adapter)
    assert sum(t.numel() for t in saved.values()) == read_plan(layout.plan).stages[0].trainable


def test_one_task_is_plain_lora_bit_for_bit(run: Run, data: dict[str, Any]) -> None:
    one = {role: {"tasks": {"colour": source["tasks"]["colour"]}} for role, source in data.items()}
    shared, own = (
        trained(run, one, adapters, max_steps=12, logging_steps=1) for adapters in ("shared", "per_task")
    )
    assert len(logged(own)) == 12
    assert logged(own) == logged(shared)
    for name in ("adapter_model.safetensors", "head.safetensors"):
        plain = load_file(shared.adapter / name)
        inside = own.adapter / "task_colour" if name.startswith("adapter") else own.adapter
        mine = load_file(inside / name)
        assert plain.keys() == mine.keys()
        assert all(torch.equal(plain[key], mine[key]) for key in plain), name


def test_a_damaged_adapter_of_one_task_is_found(run: Run, data: dict[str, Any]) -> None:
    layout = trained(run, data, "per_task", max_steps=3)
    plan = read_plan(layout.plan)
    (layout.adapter / "task_kind" / "adapter_model.safetensors").unlink()
    report = verify(layout.adapter, model=plan.recipe.model, facts=plan.facts, world=plan.world)
    assert "task_kind/adapter_model.safetensors is missing" in report.problems
