"""Parameter-efficient fine-tuning by any PEFT method, with PEFT's own field names.

LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA, DoRA, AdaLoRA, IA3, prompt and prefix tuning and the
rest of the installed PEFT. QLoRA (Dettmers et al. 2023, arXiv:2305.14314) is `method: lora` on a model
with `quantization: nf4`. Fields are checked against a table read from PEFT, so that a misspelt one is
found before anything heavy is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, create_model

from tlscale.errors import UsageError, unknown
from tlscale.planning.strategy import FREEZE_ALL, TRAIN_HEAD, Context, Strategy, stage
from tlscale.planning.types import Adapter, Head, Stage
from tlscale.recipe.base import Frozen

TYPES: dict[str, Any] = {
    "array": list[Any],
    "boolean": bool,
    "integer": int,
    "null": None,
    "number": float,
    "object": dict[str, Any],
    "string": str,
}
HEAD = (
    Literal["native", "pooled"],
    Field(
        "native",
        description="The model class's own head, or a linear one over pooled, normalized features.",
    ),
)
SPELLINGS = {
    "dora": "method: lora with use_dora: true",
    "rslora": "method: lora with use_rslora: true",
    "qlora": "method: lora with model.quantization: nf4",
    "pissa": "method: lora with init_lora_weights: pissa",
    "prompt": "method: prompt_tuning",
    "prefix": "method: prefix_tuning",
}


class Options(Frozen):
    """The method; its own fields stand beside it and are checked by name and type."""

    model_config = ConfigDict(extra="allow")
    method: str = Field(description="A PEFT method in lower case: lora, ia3, adalora, prompt_tuning, ...")


@cache
def methods() -> dict[str, dict[str, Any]]:
    """PEFT's methods and their fields: `{method: {field: {kinds, help, choices?}}}`."""
    table: dict[str, dict[str, Any]] = json.loads(
        Path(__file__).with_name("peft_fields.json").read_text(encoding="utf-8")
    )
    return table


@cache
def _typed(method: str) -> type[Frozen]:
    fields: dict[str, Any] = {"method": (Literal[method], ...), "head": HEAD}
    for name, about in methods()[method].items():
        if "choices" in about:
            kind: Any = Literal[tuple(about["choices"])]
        else:
            kind = TYPES[about["kinds"][0]]
            for other in about["kinds"][1:]:
                kind = kind | TYPES[other]
        fields[name] = (kind, Field(None, description=about["help"]))
    return create_model(f"Peft_{method}", __base__=Frozen, **fields)


def typed_options(raw: Mapping[str, Any]) -> type[Frozen]:
    """The model of the named method's own fields.

    Raises:
        UsageError: no method is named, or PEFT has none of that name.
    """
    method = raw.get("method")
    if method is None:
        raise UsageError("method is missing; for example: method: lora")
    if method in SPELLINGS:
        raise UsageError(f"method {method}: write {SPELLINGS[method]}")
    if method not in methods():
        raise UsageError(f"method {method}: {unknown(str(method), methods(), 'PEFT method')}")
    return _typed(method)


def compile_peft(options: Frozen, context: Context) -> tuple[Stage, ...]:
    fields = options.model_dump(exclude_unset=True)
    method, kind = fields.pop("method"), fields.pop("head", "native")
    adapter = Adapter(peft_type=method.upper(), fields=fields)
    trained = (TRAIN_HEAD,) if context.facts.head_is_new or kind == "pooled" else ()
    return (stage(context, adapter=adapter, rules=(*trained, FREEZE_ALL), head=Head(kind=kind)),)


STRATEGY = Strategy(
    "peft",
    "A small adapter is trained by any PEFT method; the base is frozen.",
    Options,
    compile_peft,
    refine=typed_options,
    variants=lambda: tuple({"method": method} for method in methods()),
)
