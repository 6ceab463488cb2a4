"""Finding strategies, evaluation tasks, heads, objectives and launchers by name.

Built-ins are one literal table of `"name": "module:attribute"`; installed packages add to it through
entry points of the same group names. Nothing is imported until it is named, so a broken plugin fails
only for those who ask for it. Two plugins of one name are an error.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from tlscale.errors import TlscaleError, UsageError, unknown

BUILTINS: dict[str, dict[str, str]] = {
    "tlscale.strategies": {
        "adda": "tlscale.strategies.adda:STRATEGY",
        "auto": "tlscale.strategies.auto:STRATEGY",
        "contrastive": "tlscale.strategies.contrastive:STRATEGY",
        "features": "tlscale.strategies.features:STRATEGY",
        "full": "tlscale.strategies.full:STRATEGY",
        "fusion": "tlscale.strategies.fusion:STRATEGY",
        "gradual_unfreezing": "tlscale.strategies.gradual_unfreezing:STRATEGY",
        "layer_decay": "tlscale.strategies.layer_decay:STRATEGY",
        "none": "tlscale.strategies.none:STRATEGY",
        "partial": "tlscale.strategies.partial:STRATEGY",
        "peft": "tlscale.strategies.peft:STRATEGY",
    },
    "tlscale.objectives": {
        "adda": "tlscale.engine.terms.adversarial:make_adda",
        "cdan": "tlscale.engine.terms.adversarial:make_cdan",
        "choices": "tlscale.engine.terms.choices:make_choices",
        "contrastive": "tlscale.engine.terms.contrastive:make_contrastive",
        "coral": "tlscale.engine.terms.aligning:make_coral",
        "dann": "tlscale.engine.terms.adversarial:make_dann",
        "ewc": "tlscale.engine.terms.staying:make_ewc",
        "kl_to_base": "tlscale.engine.terms.base:make_kl_to_base",
        "l2_sp": "tlscale.engine.terms.staying:make_l2_sp",
        "mcc": "tlscale.engine.terms.aligning:make_mcc",
        "mmd": "tlscale.engine.terms.aligning:make_mmd",
        "o_lora": "tlscale.engine.terms.orthogonal:make_o_lora",
        "pet": "tlscale.engine.terms.pet:make_pet",
        "pet_mlm": "tlscale.engine.terms.pet:make_pet_mlm",
        "rdrop": "tlscale.engine.terms.dropout:make_rdrop",
        "replay": "tlscale.engine.objectives:make_replay",
        "task": "tlscale.engine.objectives:make_task",
    },
    "tlscale.tasks": {
        "ag_news": "tlscale.evaluation.tasks.builtin.ag_news:TASK",
        "arc_challenge": "tlscale.evaluation.tasks.builtin.arc_challenge:TASK",
        "arc_easy": "tlscale.evaluation.tasks.builtin.arc_easy:TASK",
        "banking77": "tlscale.evaluation.tasks.builtin.banking77:TASK",
        "bbq": "tlscale.evaluation.tasks.builtin.bbq:TASK",
        "boolq": "tlscale.evaluation.tasks.builtin.boolq:TASK",
        "clinc150_oos": "tlscale.evaluation.tasks.builtin.clinc150_oos:TASK",
        "code_continuation": "tlscale.evaluation.tasks.builtin.code_continuation:TASK",
        "commonsense_qa": "tlscale.evaluation.tasks.builtin.commonsense_qa:TASK",
        "copa": "tlscale.evaluation.tasks.builtin.copa:TASK",
        "crows_pairs": "tlscale.evaluation.tasks.builtin.crows_pairs:TASK",
        "fashion_mnist": "tlscale.evaluation.tasks.builtin.fashion_mnist:TASK",
        "gsm8k": "tlscale.evaluation.tasks.builtin.gsm8k:TASK",
        "hellaswag": "tlscale.evaluation.tasks.builtin.hellaswag:TASK",
        "lambada": "tlscale.evaluation.tasks.builtin.lambada:TASK",
        "mmlu": "tlscale.evaluation.tasks.builtin.mmlu:TASK",
        "openbookqa": "tlscale.evaluation.tasks.builtin.openbookqa:TASK",
        "piqa": "tlscale.evaluation.tasks.builtin.piqa:TASK",
        "sms_spam": "tlscale.evaluation.tasks.builtin.sms_spam:TASK",
        "truthfulqa_mc1": "tlscale.evaluation.tasks.builtin.truthfulqa:TASK",
        "truthfulqa_mc2": "tlscale.evaluation.tasks.builtin.truthfulqa_mc2:TASK",
        "wikitext2": "tlscale.evaluation.tasks.builtin.wikitext2:TASK",
        "winobias": "tlscale.evaluation.tasks.builtin.winobias:TASK",
        "winogrande": "tlscale.evaluation.tasks.builtin.winogrande:TASK",
        "wsc273": "tlscale.evaluation.tasks.builtin.wsc273:TASK",
    },
    "tlscale.predictors": {
        "class-mean": "tlscale.evaluation.predictors.embedding:class_mean",
        "clip": "tlscale.evaluation.predictors.imagetext:clip",
        "embedding": "tlscale.evaluation.predictors.embedding:embedding",
        "endpoint": "tlscale.evaluation.predictors.endpoint:endpoint",
        "head": "tlscale.evaluation.predictors.head:head",
        "knn": "tlscale.evaluation.predictors.embedding:knn",
        "lm": "tlscale.evaluation.predictors.language:language",
        "masked-lm": "tlscale.evaluation.predictors.masked:masked",
        "nli": "tlscale.evaluation.predictors.entailment:entailment",
    },
    "tlscale.heads": {},
    "tlscale.launchers": {},
}


@dataclass(frozen=True)
class Listing:
    """One plugin as `tlscale plugins` shows it; `error` is set when importing it failed."""

    group: str
    name: str
    target: str
    error: str | None


@cache
def _targets(group: str) -> dict[str, str]:
    if group not in BUILTINS:
        raise UsageError(f"plugin group {group!r}: {unknown(group, BUILTINS, 'group')}")
    table = dict(BUILTINS[group])
    for point in metadata.entry_points(group=group):
        if point.name in table and table[point.name] != point.value:
            raise UsageError(
                f"two plugins of group {group} are named {point.name!r}: {table[point.name]} and "
                f"{point.value}; uninstall one of them"
            )
        table[point.name] = point.value
    return table


def names(group: str) -> tuple[str, ...]:
    """All plugin names of `group`, sorted. Imports none of them."""
    return tuple(sorted(_targets(group)))


def resolve(target: str) -> Any:
    """The object at `"module:attribute"`.

    Raises:
        TlscaleError: the module or the attribute can't be imported.
    """
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise TlscaleError(f"plugin {target} can't be loaded: {type(error).__name__}: {error}") from error


def load(group: str, name: str) -> Any:
    """The plugin `name` of `group`.

    Raises:
        UsageError: no plugin has that name (the nearest one is suggested).
        TlscaleError: it has one, but importing it fails.
    """
    table = _targets(group)
    if name not in table:
        raise UsageError(f"{name}: {unknown(name, table, group.rpartition('.')[2].rstrip('s'))}")
    return resolve(table[name])


def listing() -> tuple[Listing, ...]:
    """Every plugin of every group, each imported to learn whether it works."""
    found = []
    for group in BUILTINS:
        for name in names(group):
            error = None
            try:
                load(group, name)
            except TlscaleError as failure:
                error = str(failure)
            found.append(Listing(group, name, _targets(group)[name], error))
    return tuple(found)
