"""Models for scoring alone, of classes that recipes don't train: masked LM, entailment, CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
)

from tlscale.errors import PlanError
from tlscale.models.load import locate, refused
from tlscale.models.quiet import peft_errors, quiet
from tlscale.planning.types import Facts, World
from tlscale.recipe.types import Model

CLASSES: dict[str, Any] = {
    "masked-lm": AutoModelForMaskedLM,
    "entailment": AutoModelForSequenceClassification,
    "image-text": AutoModel,
}


def load_other(kind: str, model: Model, facts: Facts, world: World) -> tuple[Any, Any]:
    """The model of `kind` in evaluation mode on the CPU, and its tokenizer or processor.

    Raises:
        PlanError: files are missing or broken, or they lack some of the parameters.
    """
    where = locate(model, facts)
    keywords = {**where.keywords, "trust_remote_code": model.trust_remote_code}
    with refused(f"{where.name}: it can't be loaded as a {kind} model"), quiet():
        made, info = CLASSES[kind].from_pretrained(
            **keywords, dtype=getattr(torch, world.dtype), use_safetensors=True, output_loading_info=True
        )
        processor = (AutoProcessor if kind == "image-text" else AutoTokenizer).from_pretrained(**keywords)
    missing = sorted(name for name in info["missing_keys"] if "position_ids" not in name)
    if missing:
        raise PlanError(
            f"{where.name}: as a {kind} model, {len(missing)} parameters would start from random numbers: "
            f"{', '.join(missing[:10])}; it is another kind of model"
        )
    return made.eval(), processor


def adapted(base: nn.Module, folder: Path) -> nn.Module:
    """`base` with the PEFT adapter in `folder` over it, in evaluation mode.

    Raises:
        PlanError: the adapter can't be read, or doesn't fit the base.
    """
    from peft import PeftModel

    with peft_errors(str(folder)):
        made: nn.Module = PeftModel.from_pretrained(base, str(folder))
    return made.eval()
