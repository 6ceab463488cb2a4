"""A stage's result on disk: a PEFT adapter, a head of our own, or an ordinary checkpoint.

Each folder has what plain PEFT or transformers reads, `probe.safetensors` (a few inputs, and what the
live model made of them) and `manifest.json`, written last, which vouches for every other file. A folder
is renamed into place when it is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tlscale.errors import PlanError
from tlscale.models import headfiles, routing
from tlscale.models.fusion import Fusion
from tlscale.models.heads import PooledClassifier, core, with_core
from tlscale.models.load import load_base
from tlscale.models.names import as_peft, transformers_model
from tlscale.models.quiet import peft_errors, quiet
from tlscale.models.saving import hashes, into_place, saving
from tlscale.planning.types import Facts, PlannedStage, World
from tlscale.recipe.types import Model
from tlscale.runs.layout import MANIFEST
from tlscale.runs.record import write_json

ADAPTERS = ("adapter", "adapters")
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PROBE = "probe.safetensors"
PROBE_ROWS, PROBE_TOKENS = 2, 32
OUTPUT = "output"


@dataclass(frozen=True)
class Gathered:
    """A module that no process holds whole: its weights by live name, and its outputs on the probe."""

    state: Mapping[str, torch.Tensor]
    output: torch.Tensor

    def of(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """The weights by the names that the model inside `module` has for them."""
        start = "" if core(module) is module else "backbone."
        return {n.removeprefix(start): t for n, t in self.state.items() if n.startswith(start)}


def kind_of(module: nn.Module) -> str:
    """adapter, adapters (several), head (one of our own over a frozen base) or checkpoint."""
    if as_peft(core(module)) is not None:
        return "adapters" if getattr(module, "routes", None) is not None else "adapter"
    backbone_trains = any(p.requires_grad for p in core(module).parameters())
    return "head" if isinstance(module, PooledClassifier) and not backbone_trains else "checkpoint"


def trained(module: nn.Module) -> dict[str, torch.Tensor]:
    """What training may move, by the part and name under which it is saved."""
    found: dict[str, torch.Tensor] = {}
    inner = core(module)
    peft = as_peft(inner)
    if peft is not None:
        moving = {p.data_ptr() for p in inner.parameters() if p.requires_grad}
        prompts = peft.active_peft_config.is_prompt_learning
        for name, tensor in adapter_state(peft).items():
            # a prompt is computed from its encoder on saving, so it shares memory with no parameter
            is_prompt = prompts and name.startswith("prompt_embeddings")
            if is_prompt or tensor.data_ptr() in moving:
                found[f"adapter:{name}"] = tensor
    else:
        found |= {f"checkpoint:{n}": p.detach() for n, p in inner.named_parameters() if p.requires_grad}
    if isinstance(module, PooledClassifier):
        found |= {f"head:{n}": p.detach() for n, p in module.head.named_parameters() if p.requires_grad}
    return found


def adapter_state(peft: Any) -> dict[str, torch.Tensor]:
    """The adapter's tensors under the names that PEFT saves them by.

    Of several adapters, each tensor's name begins with its adapter's: the folder that it is saved in.
    """
    from peft import get_peft_model_state_dict

    found: dict[str, torch.Tensor] = {}
    for adapter in peft.peft_config:
        state = get_peft_model_state_dict(peft, adapter_name=adapter, save_embedding_layers=False)
        folder = "" if adapter == "default" else f"{adapter}/"
        found |= {folder + name: tensor.detach() for name, tensor in state.items()}
    return found


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(plain.numpy().data).hexdigest()


def fingerprints(module: nn.Module) -> dict[str, str]:
    """A digest of everything in `module` that is to be trained.

    Taken before training, it tells later whether each part has moved.
    """
    return {name: digest(tensor) for name, tensor in trained(module).items()}


def save(
    module: nn.Module,
    processor: Any,
    folder: Path,
    *,
    planned: PlannedStage,
    facts: Facts,
    model: Model,
    initial: Mapping[str, str],
    probe: Mapping[str, torch.Tensor],
    gathered: Gathered | None = None,
) -> Path:
    """Writes the result of a stage to `folder`, in place of what was there.

    Args:
        processor: Its tokenizer or image processor, saved along; `None` for none.
        folder: Appears whole or not at all.
        facts: Of the base: commit, vocabulary and labels are recorded.
        model: The base that the stage started from.
        initial: `fingerprints` from before training.
        probe: A batch without labels; at most 2 rows and 32 tokens of it are kept.
        gathered: Of a module that is shared out over processes, in place of the module's own.

    Raises:
        PlanError: an adapter or head was trained over random weights that nobody else can have.
    """
    kind = kind_of(module)
    if model.init == "scratch" and kind != "checkpoint":
        raise PlanError(
            f"stage {planned.stage.name}: the base starts from random weights, which an artifact of kind "
            f"{kind} doesn't hold; train all of it (strategy kind: full), or set model.init to pretrained"
        )
    with saving(folder) as partial:
        with quiet():
            _write(module, kind, partial, model=model, facts=facts, gathered=gathered)
            if processor is not None:
                processor.save_pretrained(str(partial))
        _save_probe(module, probe, partial, gathered)
        write_json(partial / MANIFEST, _manifest(module, kind, partial, planned, facts, model, initial))
        into_place(partial, folder)
    return folder


def _write(
    module: nn.Module, kind: str, folder: Path, *, model: Model, facts: Facts, gathered: Gathered | None
) -> None:
    """The weights, in the layout of PEFT, of transformers, or our own for a head."""
    inner: Any = core(module)
    state = None if gathered is None else gathered.of(module)
    if kind in ADAPTERS:
        for config in inner.peft_config.values():
            config.base_model_name_or_path = model.model_name_or_path
            config.revision = facts.commit
        inner.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
        # PEFT's empty card would pass for a description of this result
        (folder / "README.md").unlink(missing_ok=True)
    elif kind == "checkpoint":
        inner.save_pretrained(str(folder), state_dict=state)
    if isinstance(module, PooledClassifier):
        headfiles.save(module, folder, facts.labels)


def load(folder: Path, *, model: Model, facts: Facts, world: World) -> nn.Module:
    """The saved result on a freshly loaded base, in evaluation mode.

    Args:
        model: The base that the stage started from.

    Raises:
        PlanError: the base or the artifact can't be loaded.
    """
    manifest = read_manifest(folder)
    head = headfiles.read_shape(folder)
    if manifest["kind"] == "checkpoint":
        own = model.model_copy(update={"model_name_or_path": str(folder), "init": "pretrained"})
        module = load_base(own, facts, head=head, world=world, seed=0, dtype=manifest["stored_dtype"])
    else:
        module = load_base(model, facts, head=head, world=world, seed=0)
    if manifest["kind"] == "adapter":
        from peft import PeftModel

        inner: Any = core(module)
        with peft_errors(str(folder)):
            module = with_core(module, PeftModel.from_pretrained(inner, str(folder)))
    if manifest["kind"] == "adapters":
        assert isinstance(module, PooledClassifier), "several adapters stand under a head of ours"
        with peft_errors(str(folder)):
            _compose(module, folder, manifest)
    if isinstance(module, PooledClassifier):
        headfiles.load_into(module, folder)
    return module.eval()


def _compose(module: PooledClassifier, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Puts several saved adapters around the backbone: one for each task, or under attention."""
    if "attention" in manifest:
        made = Fusion(manifest["adapters"], manifest["attention"])
        module.fuse(made, [folder / name for name in made.adapters])
    else:
        module.routes = routes = routing.Routes.of(manifest)
        with_core(module, routing.read(module.backbone, folder, routes))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an artifact says of itself; a `PlanError` where it can't be read."""
    path = folder / MANIFEST
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: not an artifact of tlscale: {error}") from error
    return content


def read_probe(folder: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The recorded inputs, and the live model's output on them, float32."""
    tensors = load_file(folder / PROBE)
    output = tensors.pop(OUTPUT)
    return tensors, output


@torch.no_grad()
def forward(module: nn.Module, inputs: Mapping[str, torch.Tensor], precision: torch.dtype) -> torch.Tensor:
    """Logits or embeddings of `inputs`, float32 on the CPU, in evaluation mode under autocast."""
    was_training = module.training
    module.eval()
    device = next(module.parameters()).device
    moved = {name: tensor.to(device) for name, tensor in inputs.items()}
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        made: Any = module(**moved)
    module.train(was_training)
    found: torch.Tensor = made.logits if getattr(made, "logits", None) is not None else made.embeddings
    return found.float().cpu()


def compute_dtype(module: nn.Module) -> torch.dtype:
    """The precision that the base was loaded for."""
    given = getattr(transformers_model(module).config, "dtype", None)
    return given if isinstance(given, torch.dtype) else torch.float32


def probe_inputs(probe: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is kept of a batch without labels, on the CPU."""
    cut = {
        name: tensor[:PROBE_ROWS, :PROBE_TOKENS]
        if tensor.dim() == 2 and name != "features"
        else tensor[:PROBE_ROWS]
        for name, tensor in probe.items()
    }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in cut.items()}


def _save_probe(
    module: nn.Module, probe: Mapping[str, torch.Tensor], folder: Path, gathered: Gathered | None
) -> None:
    tensors = probe_inputs(probe)
    live = forward(module, tensors, compute_dtype(module)) if gathered is None else gathered.output
    output = live.contiguous()
    save_file({**tensors, OUTPUT: output}, folder / PROBE)


def _manifest(
    module: nn.Module,
    kind: str,
    folder: Path,
    planned: PlannedStage,
    facts: Facts,
    model: Model,
    initial: Mapping[str, str],
) -> dict[str, Any]:
    stored = {p.dtype for p in core(module).parameters() if p.requires_grad} or {compute_dtype(module)}
    return {
        "kind": kind,
        "stage": planned.stage.name,
        "task": model.task,
        "base": model.model_name_or_path,
        "revision": facts.commit,
        "quantization": model.quantization,
        "vocab_size": facts.architecture.vocab_size,
        "labels": list(facts.labels),
        "device": next(module.parameters()).device.type,
        "compute_dtype": str(compute_dtype(module)).removeprefix("torch."),
        "stored_dtype": "float32" if torch.float32 in stored else str(stored.pop()).removeprefix("torch."),
        **(module.routes.said() if isinstance(module, PooledClassifier) and module.routes else {}),
        "tensors": len(initial),
        "initial": dict(initial),
        "files": hashes(folder),
    }
