"""What can be told of an adapter from its files and its base alone, whoever made it.

It loads onto the base that it names, its tensors are just those that its config describes, they are finite,
and the outputs are others than the base's. Artifacts of our own are verified in full besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tlscale.models import artifact
from tlscale.models.heads import core
from tlscale.models.load import load_base
from tlscale.models.names import as_peft
from tlscale.models.quiet import peft_errors
from tlscale.models.verify import (
    READ_ERRORS,
    allowed,
    apart,
    changed_files,
    contents,
    key_problems,
    saved_tensors,
    verify,
)
from tlscale.planning.types import Facts, World
from tlscale.recipe.types import Model
from tlscale.runs.layout import MANIFEST

ROWS, TOKENS = 2, 16


@dataclass(frozen=True)
class Examined:
    """What came out: `effect` is the largest change of an output by the adapter, on random inputs.

    `max_difference` is between the outputs here and those that the maker recorded; `None` where none were.
    """

    kind: str
    tensors: int
    effect: float
    max_difference: float | None
    problems: tuple[str, ...]


def anonymous(inputs: Mapping[str, torch.Tensor], vocab_size: int) -> dict[str, torch.Tensor]:
    """Inputs of the same names and shapes with random content: nothing of the data is in them."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, tensor in inputs.items():
        if name == "input_ids":
            made[name] = torch.randint(0, vocab_size, tuple(tensor.shape), generator=generator)
        elif tensor.is_floating_point():
            made[name] = torch.randn(tuple(tensor.shape), generator=generator).to(tensor.dtype)
        else:
            fill = torch.ones_like if name.endswith("mask") else torch.zeros_like
            made[name] = fill(tensor)
    return made


def record(module: nn.Module, inputs: Mapping[str, torch.Tensor], file: Path, compute_dtype: str) -> None:
    """Writes inputs and the module's float32 outputs on them to `file`."""
    output = artifact.forward(module, inputs, getattr(torch, compute_dtype)).contiguous()
    save_file({**inputs, artifact.OUTPUT: output}, file)


def examine(folder: Path, *, model: Model, facts: Facts, world: World) -> Examined:
    """Examines the files in `folder`, which hold no code and no pickle.

    Raises nothing about the files themselves: whatever is wrong is in `problems`.
    """
    try:
        if (folder / MANIFEST).is_file():
            return _ours(folder, model=model, facts=facts, world=world)
        return _anyones(folder, model=model, facts=facts, world=world)
    except READ_ERRORS as error:
        return Examined("unknown", 0, 0.0, None, (f"it can't be loaded on its base: {error}",))


def _ours(folder: Path, *, model: Model, facts: Facts, world: World) -> Examined:
    manifest = artifact.read_manifest(folder)
    if manifest["kind"] == "checkpoint":
        return _whole(folder, model=model, facts=facts, world=world)
    report = verify(folder, model=model, facts=facts, world=world)
    if report.problems or report.kind != "adapter":
        return Examined(report.kind, report.tensors, 0.0, report.max_difference, report.problems)
    module = artifact.load(folder, model=model, facts=facts, world=world).to(world.device)
    effect, problems = _effect(module, artifact.read_probe(folder)[0], manifest["compute_dtype"])
    return Examined("adapter", report.tensors, effect, report.max_difference, problems)


def _whole(folder: Path, *, model: Model, facts: Facts, world: World) -> Examined:
    """A checkpoint stands on no base: the one it was made from need not be at hand."""
    manifest = artifact.read_manifest(folder)
    problems = tuple(changed_files(folder, manifest))
    if problems:
        return Examined("checkpoint", 0, 0.0, None, problems)
    module = artifact.load(folder, model=model, facts=facts, world=world).to(world.device)
    inputs, expected = artifact.read_probe(folder)
    got = artifact.forward(module, inputs, getattr(torch, manifest["compute_dtype"]))
    difference, limit = apart(got, expected), allowed(manifest, world)
    if not difference <= limit:
        problems = (f"its outputs differ by {difference:.1e} from the recorded ones (allowed {limit:.0e})",)
    return Examined("checkpoint", len(list(module.parameters())), 0.0, difference, problems)


def _anyones(folder: Path, *, model: Model, facts: Facts, world: World) -> Examined:
    from peft import PeftModel

    saved, unread = saved_tensors(folder)
    problems = [*unread, *contents(saved)]
    if problems:
        return Examined("adapter", len(saved), 0.0, None, tuple(problems))
    base: Any = load_base(model, facts, head=None, world=world, seed=0)
    with peft_errors(str(folder)):
        module = PeftModel.from_pretrained(core(base), str(folder)).eval().to(world.device)
    problems = list(key_problems(module, saved))
    if problems:
        return Examined("adapter", len(saved), 0.0, None, tuple(problems))
    ids = torch.zeros(ROWS, TOKENS, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.task == "image-classification":
        size = getattr(base.config, "image_size", 224)
        inputs = {"pixel_values": torch.zeros(ROWS, 3, size, size)}
    if model.task == "audio-classification":
        inputs = {"input_values": torch.zeros(ROWS, base.config.max_length, base.config.num_mel_bins)}
    random = anonymous(inputs, facts.architecture.vocab_size)
    effect, found = _effect(module, random, str(artifact.compute_dtype(base)).removeprefix("torch."))
    return Examined("adapter", len(saved), effect, None, found)


def _effect(
    module: nn.Module, inputs: Mapping[str, torch.Tensor], compute_dtype: str
) -> tuple[float, tuple[str, ...]]:
    """How far the adapter moves the outputs, and whether that is nothing at all or no number."""
    precision: torch.dtype = getattr(torch, compute_dtype)
    peft: Any = as_peft(core(module))
    with_it = artifact.forward(module, inputs, precision)
    with peft.disable_adapter():
        without = artifact.forward(module, inputs, precision)
    effect = float((with_it - without).abs().max())
    if not torch.isfinite(with_it).all():
        return effect, ("with the adapter the outputs are not finite",)
    return effect, () if effect > 0 else ("it does nothing: the outputs are exactly the base's",)
