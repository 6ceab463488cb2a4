"""Verification fails for everything that has gone wrong with saved adapters, and says what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.integration.models_kit import (
    CPU,
    FREEZE_ALL,
    PEFT_RULES,
    POOLED,
    TRAIN_ALL,
    Kit,
    kit_for,
    make_model,
    train,
)
from tlscale.errors import PlanError, WriteError
from tlscale.models import artifact
from tlscale.models.verify import VerifyReport, verify
from tlscale.planning.types import Adapter
from tlscale.runs.record import sha256

LORA = Adapter(peft_type="LORA", fields={"r": 2, "target_modules": ["q_proj", "v_proj"]})
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return kit_for(make_model("llama", tmp_path / "base"), "causal-lm", adapter=LORA, rules=(FREEZE_ALL,))


@pytest.fixture
def saved(kit: Kit, tmp_path: Path) -> Path:
    module = kit.applied()
    initial = artifact.fingerprints(module)
    train(module, kit)
    return kit.save(module, tmp_path / "adapter", initial)


def check(folder: Path, kit: Kit, live: nn.Module | None = None) -> VerifyReport:
    return verify(folder, model=kit.model, facts=kit.facts, world=kit.world, live=live)


def tamper(folder: Path, name: str, change: Callable[[Tensors], Tensors], *, sign: bool = True) -> None:
    """Changes tensors of a saved file; `sign` makes the manifest vouch for it, as a faulty save does."""
    path = folder / name
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    if sign:
        vouch(folder, name)


def vouch(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / name
    manifest["files"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def emptied(tensors: Tensors) -> Tensors:
    first = min(tensors)
    return {**tensors, first: torch.empty(0)}


def poisoned(tensors: Tensors) -> Tensors:
    first = min(tensors)
    tensors[first].view(-1)[0] = float("nan")
    return tensors


def renamed(tensors: Tensors) -> Tensors:
    first = min(tensors)
    return {name.replace("q_proj", "k_proj") if name == first else name: t for name, t in tensors.items()}


def shortened(tensors: Tensors) -> Tensors:
    return {name: t for name, t in tensors.items() if name != min(tensors)}


def zeroed(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(t) if ".lora_B." in name else t for name, t in tensors.items()}


def nudged(tensors: Tensors) -> Tensors:
    return {name: t + 0.05 for name, t in tensors.items()}


def without_all(tensors: Tensors) -> Tensors:
    return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (emptied, "1 tensors are empty: .*lora_A"),
        (poisoned, "1 tensors are not finite"),
        (renamed, "missing adapter keys|tensors are missing"),
        (shortened, "missing adapter keys|tensors are missing"),
        (zeroed, "zero, so that the adapter does nothing"),
        (nudged, "its outputs differ by"),
        (without_all, "it holds no tensors"),
    ],
)
def test_faulty_saves(saved: Path, kit: Kit, change: Callable[[Tensors], Tensors], message: str) -> None:
    assert check(saved, kit).problems == ()
    tamper(saved, "adapter_model.safetensors", change)
    report = check(saved, kit)
    assert len(report.problems) >= 1
    assert any_matches(report, message)


def any_matches(report: VerifyReport, message: str) -> bool:
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(report.problems))
    return True


def test_a_tensor_that_no_adapter_has(saved: Path, kit: Kit) -> None:
    tamper(saved, "adapter_model.safetensors", lambda t: {**t, "stray.lora_A.weight": torch.ones(2, 2)})
    assert any_matches(check(saved, kit), "1 tensors are not known to the adapter: stray")


def test_an_adapter_that_never_moved(kit: Kit, tmp_path: Path) -> None:
    module = kit.applied()
    folder = kit.save(module, tmp_path / "out", artifact.fingerprints(module))
    report = check(folder, kit, live=module)
    assert report.moved == 0
    assert any_matches(report, "8 tensors are still at their initial value")


def test_a_layer_that_never_moved(kit: Kit, tmp_path: Path) -> None:
    module = kit.applied()
    initial = artifact.fingerprints(module)
    stuck = {
        n: p.detach().clone() for n, p in module.named_parameters() if "layers.1.self_attn.v_proj.lora" in n
    }
    train(module, kit)
    named = dict(module.named_parameters())
    for name, value in stuck.items():
        named[name].data = value
    report = check(kit.save(module, tmp_path / "out", initial), kit)
    assert report.moved == 6
    assert any_matches(
        report, r"2 tensors are still at their initial value: .*layers\.1\.self_attn\.v_proj"
    )


def test_one_step_moves_one_factor_only_and_that_is_enough(kit: Kit, tmp_path: Path) -> None:
    module = kit.applied()
    initial = artifact.fingerprints(module)
    train(module, kit, steps=1)
    report = check(kit.save(module, tmp_path / "out", initial), kit)
    assert report.problems == ()
    assert report.moved == 4


def test_a_checkpoint_and_a_head_that_never_moved(kit: Kit, tmp_path: Path) -> None:
    whole = kit_for(tmp_path / "base", "causal-lm", rules=(TRAIN_ALL,))
    module = whole.applied()
    folder = whole.save(module, tmp_path / "whole", artifact.fingerprints(module))
    assert any_matches(check(folder, whole), r"still at their initial value \(21 of 21\)")
    headed = kit_for(tmp_path / "base", "sequence-classification", rules=PEFT_RULES, head=POOLED)
    module = headed.applied()
    folder = headed.save(module, tmp_path / "head", artifact.fingerprints(module))
    assert any_matches(check(folder, headed), r"2 tensors are still at their initial value: output\.")


def test_any_changed_byte(saved: Path, kit: Kit) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "probe.safetensors"):
        path = saved / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        assert any_matches(check(saved, kit), f"{name} is not the file that was saved")
        path.write_bytes(whole)
    assert check(saved, kit).problems == ()


def test_a_missing_file_and_a_pickled_one(saved: Path, kit: Kit) -> None:
    (saved / "tokenizer.json").unlink()
    torch.save({}, saved / "adapter_model.bin")
    problems = check(saved, kit).problems
    assert "tokenizer.json is missing" in problems
    assert any("adapter_model.bin is pickled" in problem for problem in problems)


def test_cut_short(saved: Path, kit: Kit) -> None:
    path = saved / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    vouch(saved, path.name)
    assert any_matches(check(saved, kit), r"adapter_model\.safetensors can't be read")


def test_another_base_of_the_same_shape(saved: Path, kit: Kit, tmp_path: Path) -> None:
    other = kit_for(
        make_model("llama", tmp_path / "other", seed=8), "causal-lm", adapter=LORA, rules=(FREEZE_ALL,)
    )
    report = check(saved, other)
    assert report.max_difference > 1e-2
    assert any_matches(report, "its outputs differ by")


def test_another_revision_vocabulary_or_label(saved: Path, kit: Kit) -> None:
    architecture = kit.facts.architecture.model_copy(update={"vocab_size": 62})
    for change, message in (
        ({"commit": "a" * 40}, "revision: it was trained with None"),
        ({"architecture": architecture}, "vocab_size: it was trained with 61, the base here has 62"),
        ({"labels": ("x",)}, "labels: it was trained with"),
    ):
        facts = kit.facts.model_copy(update=change)
        report = verify(saved, model=kit.model, facts=facts, world=CPU)
        assert any_matches(report, message)


def test_an_adapter_config_that_names_another_base(saved: Path, kit: Kit) -> None:
    path = saved / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": "someone/else"}))
    vouch(saved, path.name)
    assert any_matches(check(saved, kit), "base_model_name_or_path is someone/else")


def test_no_manifest_or_a_broken_one(saved: Path, kit: Kit) -> None:
    for content in ("{", "[]", "{}", '{"kind": "adapter"}'):
        (saved / "manifest.json").write_text(content)
        assert any_matches(check(saved, kit), "the manifest can't be used")
    (saved / "manifest.json").unlink()
    assert any_matches(check(saved, kit), "the manifest can't be used")


def test_a_live_model_that_differs_from_what_was_saved(kit: Kit, tmp_path: Path) -> None:
    module = kit.applied()
    initial = artifact.fingerprints(module)
    train(module, kit)
    folder = kit.save(module, tmp_path / "out", initial)
    train(module, kit)
    assert any_matches(check(folder, kit, live=module), "its outputs differ by")


def test_a_save_that_dies_leaves_the_former_result(kit: Kit, tmp_path: Path) -> None:
    module = kit.applied()
    initial = artifact.fingerprints(module)
    train(module, kit)
    folder = kit.save(module, tmp_path / "out", initial)
    before = {p.name: sha256(p) for p in folder.iterdir()}

    class Broken:
        def save_pretrained(self, folder: str) -> None:
            raise OSError("No space left on device")

    with pytest.raises(WriteError, match="can't be written: No space"):
        artifact.save(
            module,
            Broken(),
            folder,
            planned=kit.planned,
            facts=kit.facts,
            model=kit.model,
            initial=initial,
            probe={"input_ids": torch.tensor([[3, 4]])},
        )
    assert {p.name: sha256(p) for p in folder.iterdir()} == before


def test_an_adapter_over_random_weights_is_not_saved(tmp_path: Path) -> None:
    kit = kit_for(
        make_model("llama", tmp_path / "base"),
        "causal-lm",
        adapter=LORA,
        rules=(FREEZE_ALL,),
        init="scratch",
    )
    module = kit.applied()
    with pytest.raises(PlanError, match="random weights"):
        kit.save(module, tmp_path / "out", artifact.fingerprints(module))
