"""The part of a card that is code: loading the result, and doing it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from tlscale.planning.types import Plan
from tlscale.publish import composed
from tlscale.publish.content import Base
from tlscale.publish.evidence import ROLES, DataPart
from tlscale.publish.markdown import block, bullets, code, plain
from tlscale.recipe.paths import BUILTIN

CLASSES = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "sentence-embedding": "AutoModel",
}


def loading(repository: str, plan: Plan, kind: str, base: Base | None) -> str:
    """With PEFT, merged, and with vLLM; each only where it works."""
    task, quantization = plan.recipe.model.task, plan.recipe.model.quantization
    name = CLASSES[task]
    if kind == composed.KIND:
        assert base is not None
        return composed.loading(repository, plan, base)
    pooled = plan.stages[-1].stage.head.kind == "pooled"
    if kind == "head" or pooled:
        return "The head is tlscale's own:\n\n" + block(f"tlscale verify hub:{repository}", "sh")
    labels = f", num_labels={len(plan.facts.labels)}" if plan.facts.labels else ""
    if kind == "checkpoint":
        whole = f"from transformers import {name}\n\nmodel = {name}.from_pretrained({repository!r})"
        return block(whole, "python") + _served(task, f"vllm serve {repository}")
    assert base is not None
    given = f"{base.name!r}, revision={base.commit!r}{labels}"
    peft = (
        f"from peft import PeftModel\nfrom transformers import {name}\n\n"
        f"base = {name}.from_pretrained(\n    {given}\n)\n"
        f"model = PeftModel.from_pretrained(base, {repository!r})"
    )
    parts = ["With PEFT:", block(peft, "python")]
    if quantization != "none":
        parts.append(
            f"It was trained on a base in {plain(quantization)}; loaded on the base in full precision its "
            "outputs differ a little."
        )
    parts += [
        "Merged, for the speed of a plain model:",
        block("model = model.merge_and_unload()", "python"),
    ]
    served = (
        f"vllm serve {base.name} --revision {base.commit} --enable-lora --lora-modules tuned={repository}"
    )
    adapter = plan.stages[-1].stage.adapter
    plain_lora = adapter is not None and adapter.peft_type == "LORA"
    return "\n\n".join(parts) + (_served(task, served) if plain_lora else "")


def _served(task: str, command: str) -> str:
    if task != "causal-lm":
        return ""
    return "\n\nWith vLLM, which was not tested here:\n\n" + block(command, "sh")


def again(repository: str, plan: Plan, data: Iterable[DataPart], versions: Mapping[str, str]) -> str:
    """The command that repeats the run, the files that it needs, and the versions it ran with."""
    needed = [
        part
        for part in data
        if part.hub is None and part.role in ROLES and not part.name.startswith(BUILTIN)
    ]
    # whoever gave a file its name must not write into a stranger's shell
    overrides = [shlex.quote(f"data.{part.role}.path=YOUR/{part.name}") for part in needed]
    command = " ".join([f"tlscale reproduce hub:{repository}", *overrides])
    parts = [block(command, "sh")]
    parts.append(
        "It trains from `recipe.yaml` with the same seed and says how far the scores are from those above."
    )
    if needed:
        parts.append(
            "The data files are not published; yours are compared by their SHA-256 before anything runs."
        )
    listed = bullets(f"{code(name)} {plain(version)}" for name, version in versions.items())
    parts.append(f"It ran with:\n\n{listed}")
    parts.append(f"Plan: {code(plan.fingerprint)}, seed {plan.seed}.")
    return "\n\n".join(parts)
