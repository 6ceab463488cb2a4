"""What is known of the base model without its weights and without torch.

Read from `config.json` and safetensors headers; from the config alone where there are no weights and the
architecture is one that `shapes` knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tlscale.errors import PlanError
from tlscale.planning import heads
from tlscale.planning.architecture import feature_size, is_tied, lookup, read_architecture
from tlscale.planning.headers import DTYPES, PICKLES, Stored, existing_folder, read_folder, read_json
from tlscale.planning.hub import read_hub
from tlscale.planning.naming import loaded_names, split
from tlscale.planning.pictures import OWN
from tlscale.planning.shapes import from_config, supported
from tlscale.planning.tasks import LANGUAGE
from tlscale.planning.types import Architecture, Facts, Tensor
from tlscale.recipe.paths import ASSETS, BUILTIN
from tlscale.recipe.types import Model

DIMENSIONS = tuple(name for name in Architecture.model_fields if name != "model_type")


@dataclass(frozen=True)
class _Found:
    """Where the model was found, and what lies there."""

    where: str
    folder: str
    commit: str | None
    config: Mapping[str, Any]
    stored: dict[str, Stored] | None
    has_pickle: bool


def read_facts(model: Model, *, labels: tuple[str, ...], offline: bool) -> Facts:
    """The facts about `model` for a task with these `labels`.

    `folder` of the result is where the files lie: the local folder, or the Hub cache's snapshot of
    `commit`, which may hold the config only.

    Raises:
        PlanError: there is no such model, or what is there can't be planned with; the message says why.
    """
    found = _find(model, offline=offline)
    _refuse_quantized(found)
    architecture = read_architecture(found.config, found.where)
    stored, origin = _stored(model, architecture, found)
    backbone, own_head = split(architecture.model_type, stored)
    if not backbone:
        raise PlanError(f"{found.where}: its files hold no parameters of a {architecture.model_type} model")
    width = feature_size(found.config, backbone, architecture.hidden_size)
    architecture = architecture.model_copy(update={"hidden_size": width})
    backbone, head, is_new = _for_task(model, labels, architecture, found, backbone, own_head)
    tensors = tuple(
        Tensor(name=name, shape=tensor.shape, dtype=tensor.dtype)
        for part in (backbone, head)
        for name, tensor in part.items()
    )
    return Facts(
        model=model.model_name_or_path,
        commit=found.commit,
        folder=found.folder,
        architecture=architecture,
        tensors=tensors,
        labels=labels,
        origin=origin,
        head_is_new=is_new,
        left_out=() if model.task in LANGUAGE else tuple(n for n in own_head if n not in head),
    )


def read_bare(model: Model, *, offline: bool) -> tuple[Facts, tuple[str, ...]]:
    """What matters of a model that is only scored, and the classes that its config names.

    No parameters, and a model type that can't be planned with is no obstacle.

    Raises:
        PlanError: there is no such model.
    """
    found = _find(model, offline=offline)
    try:
        architecture = read_architecture(found.config, found.where)
    except PlanError:
        kind = str(found.config.get("model_type", "unknown"))
        architecture = Architecture(model_type=kind, **dict.fromkeys(DIMENSIONS, 0))
    names = found.config.get("id2label")
    labels = tuple(map(str, names.values())) if isinstance(names, dict) else ()
    facts = Facts(
        model=model.model_name_or_path,
        commit=found.commit,
        folder=found.folder,
        architecture=architecture,
        tensors=(),
        labels=labels,
        origin="config",
        head_is_new=False,
    )
    return facts, tuple(found.config.get("architectures") or ())


def _find(model: Model, *, offline: bool) -> _Found:
    given = model.model_name_or_path
    if given.startswith(BUILTIN):
        return _in_folder(_builtin(given.removeprefix(BUILTIN)), given)
    if not on_hub(given):
        folder = existing_folder(given)
        if model.revision is not None:
            raise PlanError(
                f"model.revision: {given} is a local folder, which has no revisions; leave it out"
            )
        return _in_folder(folder, given)
    also = (OWN,) if model.task == "image-classification" else ()
    remote = read_hub(given, model.revision, offline=offline, also=also)
    where = f"{given} @ {remote.commit[:8]}"
    return _Found(
        where,
        str(remote.folder),
        remote.commit,
        remote.config,
        remote.tensors,
        remote.tensors is None and not offline,
    )


def on_hub(given: str) -> bool:
    """Whether a model's name is an id on the Hub: not a built-in one, a path, or a folder here."""
    is_path = given.startswith((BUILTIN, "/", "./", "../", "~")) or given.count("/") != 1
    return not is_path and not Path(given).expanduser().exists()


def _builtin(name: str) -> Path:
    there = sorted(p.parent.name for p in ASSETS.glob("*/config.json"))
    if name not in there:
        raise PlanError(
            f"model.model_name_or_path: no built-in model {name}; there are: {', '.join(there)}"
        )
    return ASSETS / name


def _in_folder(folder: Path, given: str) -> _Found:
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        hint = (
            "it holds a PEFT adapter; give its base model"
            if adapter
            else "it is no transformers model folder"
        )
        raise PlanError(f"model.model_name_or_path: {given} has no config.json; {hint}")
    return _Found(
        where=given,
        folder=str(folder.resolve()),
        commit=None,
        config=read_json(folder / "config.json"),
        stored=read_folder(folder),
        has_pickle=any((folder / name).is_file() for name in PICKLES),
    )


def _refuse_quantized(found: _Found) -> None:
    quantized = found.config.get("quantization_config")
    if isinstance(quantized, dict):
        raise PlanError(
            f"{found.where}: already quantized ({quantized.get('quant_method', 'unknown')}); "
            "give the full-precision checkpoint, and model.quantization to load it in fewer bits"
        )


def _stored(
    model: Model, architecture: Architecture, found: _Found
) -> tuple[dict[str, Stored], Literal["safetensors", "config"]]:
    """Parameters by loaded name, from headers, else from the config."""
    if found.stored is not None:
        return loaded_names(architecture.model_type, found.stored), "safetensors"
    if found.has_pickle and model.init == "pretrained":
        raise PlanError(
            f"{found.where}: the weights are not in safetensors; pickled checkpoints can run code and are "
            "not read; convert them once, where you trust them: "
            "AutoModel.from_pretrained(...).save_pretrained(FOLDER), and give FOLDER"
        )
    shapes = from_config(architecture, found.config)
    if shapes is None:
        raise PlanError(
            f"{found.where}: there are no weights to read, and {architecture.model_type} can't be planned "
            f"from its config alone; that works for: {', '.join(supported())}"
        )
    dtype = str(found.config.get("dtype") or found.config.get("torch_dtype") or "float32")
    code = DTYPES.get(dtype, "F32")
    return {name: Stored(code, shape) for name, shape in shapes.items()}, "config"


def _for_task(
    model: Model,
    labels: tuple[str, ...],
    architecture: Architecture,
    found: _Found,
    backbone: dict[str, Stored],
    head: dict[str, Stored],
) -> tuple[dict[str, Stored], dict[str, Stored], bool]:
    """Backbone and head as the model that is loaded for the task has them; whether the head is new."""
    dtype = next(iter(backbone.values())).dtype
    if model.task == "sentence-embedding":
        return {n: t for n, t in backbone.items() if not n.startswith("pooler.")}, {}, False
    if model.task == "causal-lm":
        return backbone, *_language_head(model, architecture, found, head, dtype)
    if model.task == "masked-lm":
        backbone = {n: t for n, t in backbone.items() if not n.startswith("pooler.")}
        return backbone, *_masked_head(architecture, found, backbone, head, dtype)
    classes = len(labels) or lookup(found.config, "num_labels") or _listed_labels(found.config)
    wanted = heads.classifier(architecture.model_type, classes, architecture.hidden_size)
    if architecture.model_type in heads.NO_POOLER:
        backbone = {n: t for n, t in backbone.items() if not n.startswith("pooler.")}
    elif architecture.model_type in heads.POOLER and heads.POOLER_NAMES[0] not in backbone:
        width = architecture.hidden_size
        shapes = ((width, width), (width,))
        backbone = backbone | {n: Stored(dtype, s) for n, s in zip(heads.POOLER_NAMES, shapes, strict=True)}
    return backbone, *heads.fitted(head, wanted, dtype)


def _listed_labels(config: Mapping[str, Any]) -> int:
    listed = config.get("id2label")
    return len(listed) if isinstance(listed, dict) and listed else 2


def _masked_head(
    architecture: Architecture,
    found: _Found,
    backbone: Mapping[str, Stored],
    head: Mapping[str, Stored],
    dtype: str,
) -> tuple[dict[str, Stored], bool]:
    embedding = next((backbone[name] for name in heads.EMBEDDINGS if name in backbone), None)
    shape = (architecture.vocab_size, architecture.hidden_size) if embedding is None else embedding.shape
    kind, tied = architecture.model_type, is_tied(found.config)
    wanted = heads.masked(kind, shape, architecture.hidden_size, tied=tied)
    if wanted is None:
        raise PlanError(
            f"model.task: {found.where}: {kind} is not known to find hidden tokens; known: "
            f"{', '.join(heads.masked_types())}; a decoder is trained with model.task: causal-lm"
        )
    return heads.fitted(head, wanted, dtype)


def _language_head(
    model: Model, architecture: Architecture, found: _Found, head: dict[str, Stored], dtype: str
) -> tuple[dict[str, Stored], bool]:
    kept = {n: t for n, t in head.items() if n.startswith(("head.lm_head.", "head.cls.predictions."))}
    decoders = ("head.lm_head.weight", "head.lm_head.decoder.weight", "head.cls.predictions.decoder.weight")
    if is_tied(found.config):
        shared = (*decoders, "head.lm_head.decoder.bias", "head.cls.predictions.decoder.bias")
        return {n: t for n, t in kept.items() if n not in shared}, False
    if any(name in kept for name in decoders):
        return kept, False
    if found.stored is not None and model.init == "pretrained":
        raise PlanError(
            f"{found.where}: the checkpoint has no output layer (lm_head.weight), and its config says that "
            "it is not shared with the input embedding; a random one would be no language model; give a "
            "causal language model, or another model.task"
        )
    shape = (architecture.vocab_size, architecture.hidden_size)
    return kept | {"head.lm_head.weight": Stored(dtype, shape)}, found.stored is not None
