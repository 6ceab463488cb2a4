"""Frozen base weights in 4 or 8 bits, by bitsandbytes (Dettmers et al. 2023, arXiv:2305.14314)."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from tlscale.errors import PlanError
from tlscale.recipe.types import Quantization


def config(kind: Quantization, dtype: torch.dtype, keep: Iterable[str]) -> BitsAndBytesConfig | None:
    """The loading configuration for `kind`, or `None` for "none".

    Args:
        kind: nf4 and fp4 quantize the quantization constants too.
        dtype: Precision of the matrix products, and of the storage: sharding moves floating point only.
        keep: Names of modules that stay in full precision: heads, which are trained or tied.

    Raises:
        PlanError: bitsandbytes is missing or broken.
    """
    if kind == "none":
        return None
    try:
        importlib.import_module("bitsandbytes")
    except (ImportError, OSError) as error:
        raise PlanError(
            f"model.quantization: bitsandbytes can't be imported ({error}); install it anew, "
            "pip install --force-reinstall bitsandbytes, or set model.quantization=none"
        ) from error
    # bitsandbytes reports the same cast on every 8-bit product, once per layer and step.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    kept = sorted(set(keep))
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
        llm_int8_skip_modules=kept,
    )


def is_quantized(parameter: torch.Tensor) -> bool:
    """Whether a parameter holds packed 4- or 8-bit values, which can't be trained."""
    packed = getattr(parameter, "quant_state", None) is not None
    return packed or parameter.dtype in (torch.int8, torch.uint8)


def size(parameter: torch.Tensor) -> int:
    """Number of weights that a parameter stands for; packed ones count as what they were packed from."""
    state: Any = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def prepare(module: nn.Module, kind: Quantization, where: str) -> None:
    """Makes a freshly loaded model safe to train adapters on.

    On processors with AVX512-BF16, bitsandbytes (0.50) repacks 4-bit weights at the first forward pass in
    evaluation mode, to a format with coarser constants and no backward pass: in training after any
    evaluation, gradients through those layers are lost. The repacking is switched off, layer by layer.

    Raises:
        PlanError: `kind` asks for quantized weights, and the model has no layer that can be quantized.
    """
    if kind == "none":
        return
    part: Any
    for part in module.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False
    if not any(is_quantized(p) for p in module.parameters()):
        raise PlanError(
            f"model.quantization is {kind}, but {where} has no linear layer that can be quantized; use none"
        )
