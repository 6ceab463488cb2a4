"""The base model and its processor, from a folder or the Hub, as the plan says.

Weights come from safetensors only, at the planned commit; a backbone parameter that the files don't
hold is an error, never a random number.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from tlscale.errors import PlanError, unknown
from tlscale.models import headfiles, quantize
from tlscale.models.classes import NATIVE
from tlscale.models.heads import Encoder, PooledClassifier, PooledHead, choose_pooling, without_pooler
from tlscale.models.names import plain
from tlscale.models.pictures import image_processor
from tlscale.models.quiet import quiet
from tlscale.planning.types import Facts, Head, World
from tlscale.recipe.paths import BUILTIN
from tlscale.recipe.types import CLASSIFICATION, WITHOUT_TEXT, Model
from tlscale.runs.layout import MANIFEST

LOG = logging.getLogger(__name__)
PROCESSORS = {"image-classification": "image processor", "audio-classification": "feature extractor"}
REMOTE_CODE = (
    "it needs Python code from its own repository, and none of it was run; if you trust it, set "
    "model.trust_remote_code=true with its full commit in model.revision"
)
LOADING_ERRORS = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip


@dataclass(frozen=True)
class Location:
    """Where files are read from: a folder, or a Hub id with a commit."""

    name: str
    revision: str | None

    @property
    def keywords(self) -> dict[str, Any]:
        """What every `from_pretrained` gets to read from here."""
        return {"pretrained_model_name_or_path": self.name, "revision": self.revision or "main"}


def locate(model: Model, facts: Facts) -> Location:
    """Where the base's weights are.

    An earlier stage's folder that holds a head only leads on to the base that the head belongs to.
    """
    name = model.model_name_or_path
    if name.startswith(BUILTIN):
        return Location(facts.folder, None)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return Location(name, facts.commit or model.revision)
    manifest = folder / MANIFEST
    if manifest.is_file():
        said = json.loads(manifest.read_text(encoding="utf-8"))
        if said["kind"] == "head":
            return locate(model.model_copy(update={"model_name_or_path": said["base"]}), facts)
    return Location(str(folder), None)


def load_processor(model: Model, facts: Facts) -> Any:
    """The tokenizer, with a padding token and the asked chat template; or the image or sound processor.

    Padding takes an existing token, so that the vocabulary never grows; it is masked everywhere.

    Raises:
        PlanError: there is none, it can't be read, or the chat template's file is missing.
    """
    where = locate(model, facts)
    keywords = {**where.keywords, "trust_remote_code": model.trust_remote_code}
    what = PROCESSORS.get(model.task, "tokenizer")
    with refused(f"{where.name}: the {what} can't be loaded"), quiet():
        if model.task == "audio-classification":
            return AutoFeatureExtractor.from_pretrained(**keywords)
        if model.task == "image-classification":
            return image_processor(model.image_processor, keywords, Path(facts.folder))
        tokenizer: Any = AutoTokenizer.from_pretrained(**keywords)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        known = (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token)
        tokenizer.pad_token = next((token for token in known if token is not None), None)
    if tokenizer.pad_token_id is None:
        raise PlanError(f"{where.name}: its tokenizer has no special token at all that padding could use")
    if model.chat_template is not None:
        file = Path(model.chat_template).expanduser()
        if not file.is_file():
            raise PlanError(f"model.chat_template: {model.chat_template}: no such file")
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    return tokenizer


def load_base(
    model: Model,
    facts: Facts,
    *,
    head: Head | None,
    world: World,
    seed: int,
    dtype: str | None = None,
    scoring: bool = False,
) -> nn.Module:
    """The base model for its task, in evaluation mode, on the CPU (quantized: on the world's device).

    Args:
        model: As the recipe, or an earlier stage's checkpoint, names it.
        facts: Of the recipe's base; `labels` size the head.
        head: `pooled` gives a `PooledClassifier`; otherwise the task's own transformers class, and an
            `Encoder` for sentence-embedding.
        world: `dtype` is the precision of the weights, unless `dtype` says otherwise.
        seed: Of whatever starts random: a new head, or everything with `init: scratch`.
        scoring: Whether an encoder-decoder may stand for a causal language model: it can be asked what
            follows a text, but is not trained here.

    Raises:
        PlanError: files are missing or broken, or they lack parameters of the backbone.
    """
    where = locate(model, facts)
    wraps = model.task == "sentence-embedding" or (head is not None and head.kind == "pooled")
    precision: torch.dtype = getattr(torch, dtype or world.dtype)
    with _seeded(seed), quiet(bars=where.revision is not None):
        auto = AutoModel if wraps else _native(model, where, scoring=scoring)
        made, missing = _transformers_model(model, facts, where, world, precision, auto)
        if wraps:
            _complete(missing, made, where, head_is_new=False)
            return _wrapped(model, facts, made, head).eval()
        is_new = facts.head_is_new or model.init == "scratch"
        fresh = _complete(missing, made, where, head_is_new=is_new)
    made.fresh_parameters = fresh
    loaded: nn.Module = made.eval()
    return loaded


def _native(model: Model, where: Location, *, scoring: bool) -> Any:
    """The transformers class of the task."""
    if scoring and model.task == "causal-lm":
        with refused(f"{where.name}: its configuration can't be read"):
            config = AutoConfig.from_pretrained(**where.keywords, trust_remote_code=model.trust_remote_code)
        if getattr(config, "is_encoder_decoder", False):
            return AutoModelForSeq2SeqLM
    return NATIVE[model.task]


def _transformers_model(
    model: Model, facts: Facts, where: Location, world: World, dtype: torch.dtype, auto: Any
) -> tuple[Any, Mapping[str, Any]]:
    """The transformers model of class `auto`, and what transformers says of keys it did and didn't find."""
    remote = model.trust_remote_code
    with refused(f"{where.name}: the model can't be loaded"):
        config = AutoConfig.from_pretrained(**where.keywords, trust_remote_code=remote)
        _override(config, model, where)
        _fit_config(config, model, facts)
        if model.init == "scratch":
            return auto.from_config(config, dtype=dtype, trust_remote_code=remote), {}
        keep = {"lm_head"} | {t.name.split(".")[1] for t in facts.tensors if t.name.startswith("head.")}
        quantization = quantize.config(model.quantization, dtype, keep)
        device = f"cuda:{torch.cuda.current_device()}" if world.device == "cuda" else "cpu"
        made, info = auto.from_pretrained(
            **where.keywords,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=remote,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            quantization_config=quantization,
            device_map=None if quantization is None else {"": device},
        )
    quantize.prepare(made, model.quantization, where.name)
    return made, info


def _override(config: Any, model: Model, where: Location) -> None:
    """Sets the fields of the model's config that the recipe sets.

    Raises:
        PlanError: the config has no such field; the nearest is named.
    """
    for name, value in model.config.items():
        if not hasattr(config, name):
            raise PlanError(
                f"model.config.{name}: {where.name}: {unknown(name, config.to_dict(), 'field')}"
            )
        setattr(config, name, value)


def _fit_config(config: Any, model: Model, facts: Facts) -> None:
    """Sizes the config's head to the labels, and gives decoders that classify a padding token."""
    if model.task not in CLASSIFICATION:
        return
    if facts.labels:
        config.id2label = dict(enumerate(facts.labels))
        config.label2id = {label: index for index, label in enumerate(facts.labels)}
    config.problem_type = "single_label_classification"
    if model.task == "sequence-classification" and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = load_processor(model, facts).pad_token_id


def _complete(info: Mapping[str, Any], made: Any, where: Location, *, head_is_new: bool) -> tuple[str, ...]:
    """Refuses a model that is partly random; returns what may start random outside the head.

    That is a pooling layer, which masked language models are published without.

    Raises:
        PlanError: parameters are missing from the files, or have another shape there.
    """
    absent = dict.fromkeys(info.get("missing_keys", ()), "not in the files")
    for name, stored, needed in info.get("mismatched_keys", ()):
        absent[name] = f"{tuple(stored)} in the files, {tuple(needed)} needed"
    fresh, lost = [], []
    for name, why in sorted(absent.items()):
        known = plain(name, made)
        if known.startswith("pooler."):
            fresh.append(known)
        elif not (known.startswith("head.") and head_is_new):
            lost.append(f"{name} ({why})")
    if lost:
        listed = ", ".join(lost[:10]) + (f" and {len(lost) - 10} more" if len(lost) > 10 else "")
        raise PlanError(
            f"{where.name}: {len(lost)} parameters would start from random numbers: {listed}; give a "
            "checkpoint that holds them, or a model.task that doesn't need them"
        )
    if info.get("unexpected_keys"):
        LOG.info("%s: not used for this task: %s", where.name, ", ".join(sorted(info["unexpected_keys"])))
    return tuple(fresh)


def _wrapped(model: Model, facts: Facts, backbone: Any, head: Head | None) -> nn.Module:
    """Our own pooling, and where asked our own head, over `backbone`."""
    pooling = choose_pooling(backbone, model.pooling, images=model.task in WITHOUT_TEXT)
    backbone = without_pooler(backbone)
    if head is None or head.kind != "pooled":
        return Encoder(backbone, pooling)
    ours = PooledHead(facts.architecture.hidden_size, len(facts.labels), head.hidden)
    if head.start == "zeros":
        nn.init.zeros_(ours.output.weight)
        nn.init.zeros_(ours.output.bias)
    made = PooledClassifier(backbone, pooling, ours, normalize=head.normalize)
    folder = Path(model.model_name_or_path).expanduser()
    if headfiles.exists(folder) and headfiles.fits(folder, facts.labels):
        headfiles.load_into(made, folder)
    return made


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Randomness from `seed` inside, the caller's own again outside."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Turns a library's loading error into one that names `what` failed."""
    try:
        yield
    except PlanError:
        raise
    except LOADING_ERRORS as error:
        lines = [line.strip() for line in str(error).strip().splitlines()] or ["no reason given"]
        reason = " ".join(lines[: 1 + lines[0].endswith(":")])
        if "trust_remote_code" in str(error):
            raise PlanError(f"{what}: {REMOTE_CODE}") from error
        raise PlanError(f"{what}: {type(error).__name__}: {reason}") from error
