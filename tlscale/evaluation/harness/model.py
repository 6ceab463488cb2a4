"""The scorer as a model of lm-evaluation-harness, under the name `tlscale`.

    python -m tlscale.evaluation.harness --model tlscale --model_args pretrained=FOLDER --tasks hellaswag

Its answers are those of the harness's own `hf` model in float32 up to rounding (within 1e-4), for greedy
generation the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from tlscale.errors import UsageError
from tlscale.evaluation.requests import Generation, Likelihood, Request, Rolling
from tlscale.evaluation.scoring.scorer import ModelScorer

NEW_TOKENS = 256  # the harness's own default
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
IGNORED = ("do_sample", "temperature", "until")


@register_model("tlscale")
class HarnessModel(LM):  # type: ignore[misc]
    """Answers the harness's requests with a `ModelScorer`.

    Args:
        pretrained: A folder or Hub id with safetensors weights.
        peft: An adapter's folder or Hub id.
        dtype: float32, bfloat16, float16, or auto for what the weights are stored in.
        budget: Tokens of one pass; None for what suits the device. The harness's batch size is not used.
        journal: A folder for answers as they come, to go on from after a kill.
        scorer: A scorer that is there already, in place of all others.
    """

    def __init__(
        self,
        pretrained: str = "",
        *,
        revision: str = "main",
        peft: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        budget: int | None = None,
        journal: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        scorer: ModelScorer | None = None,
    ) -> None:
        super().__init__()
        if scorer is None:
            module, tokenizer = _load(pretrained, revision, peft, dtype, device)
            folder = Path(journal) if journal else None
            scorer = ModelScorer(module, tokenizer, budget=budget, journal=folder, note=_say)
        self._scorer = scorer
        self._name = pretrained or "tlscale"

    @property
    def tokenizer_name(self) -> str:
        """What the harness names its request caches by."""
        return str(self._scorer.cutter.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The tokenizer's own template, or that of a name; None where none is wanted."""
        if chat_template is False:
            return None
        name = chat_template if isinstance(chat_template, str) else None
        return str(self._scorer.cutter.tokenizer.get_chat_template(name))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as the text that the model reads."""
        return str(
            self._scorer.cutter.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(log-probability, greedy) of each (context, continuation)."""
        found = self._answers([Likelihood("", *request.args) for request in requests])
        return self._kept("loglikelihood", requests, [(one.logprob, one.greedy) for one in found])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text."""
        found = self._answers([Rolling("", request.args[0]) for request in requests])
        return self._kept("loglikelihood_rolling", requests, [one.logprob for one in found])

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The greedy continuation of each context, up to a stop string.

        Raises:
            UsageError: a task asks for sampling, or for an option that greedy generation doesn't have.
        """
        end = self._scorer.cutter.tokenizer.eos_token or ""
        pairs = [request.args for request in requests]
        found = self._answers([_generation(context, asked, end) for context, asked in pairs])
        return self._kept("generate_until", requests, [one.text for one in found])

    def _answers(self, requests: Sequence[Request]) -> list[Any]:
        found = dict(self._scorer.score(requests))
        return [found[index] for index in range(len(requests))]

    def _kept(self, kind: str, requests: Sequence[Any], answers: list[Any]) -> list[Any]:
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
        return answers


def _generation(context: str, asked: dict[str, Any], end: str) -> Generation:
    sampled = asked.get("do_sample")
    if sampled or (sampled is None and float(asked.get("temperature") or 0) > 0):
        raise UsageError("the task asks for sampling (do_sample, temperature); answers here are greedy")
    unknown = sorted(asked.keys() - {*LENGTHS, *IGNORED})
    if unknown:
        raise UsageError(
            f"generation options {', '.join(unknown)}: known here are until and {', '.join(LENGTHS)}"
        )
    until = asked.get("until") or []
    lengths = [asked[name] for name in LENGTHS if asked.get(name) is not None]
    stop = (*((until,) if isinstance(until, str) else until), end)
    return Generation("", context, stop, int(lengths[0]) if lengths else NEW_TOKENS)


def _load(name: str, revision: str, peft: str | None, dtype: str, device: str | None) -> tuple[Any, Any]:
    if not name:
        raise UsageError("model_args need pretrained=FOLDER_OR_HUB_ID")
    config = AutoConfig.from_pretrained(name, revision=revision)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    precision = dtype if dtype == "auto" else getattr(torch, dtype, None)
    if precision is None:
        raise UsageError(f"dtype {dtype!r}: give auto, float32, bfloat16 or float16")
    module: Any = kind.from_pretrained(name, revision=revision, dtype=precision, use_safetensors=True)
    if peft:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, peft)
    # The harness names a GPU unless told otherwise.
    place = (device or "cuda") if torch.cuda.is_available() else "cpu"
    return module.to(place).eval(), AutoTokenizer.from_pretrained(name, revision=revision)


def _say(text: str) -> None:
    print(f"note      {text}")
