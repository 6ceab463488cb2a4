"""The scorer that takes no short cut: each context with each option as a text of its own.

It works for every causal language model, and is what faster ones are compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from tlscale.errors import DataError
from tlscale.evaluation.requests import (
    Choices,
    ChoiceScores,
    Generated,
    Generation,
    Likelihood,
    LikelihoodScore,
    Request,
    Result,
    Rolling,
    RollingScore,
)

Pair: TypeAlias = tuple[list[int], list[int]]


class NaiveScorer:
    """Answers requests one text at a time, in batches of `size`.

    Args:
        module: A causal language model, in evaluation mode, on its device.
        tokenizer: Its tokenizer.
        max_length: Tokens of the model's context.
        size: Texts in a forward pass.
    """

    def __init__(self, module: nn.Module, tokenizer: Any, *, max_length: int, size: int) -> None:
        self._module, self._tokenizer = module, tokenizer
        self._longest, self._size = max_length, size

    def overflow(self, requests: Sequence[Request]) -> tuple[int, ...]:
        """How many tokens each request's context is too long for the model; 0 where it fits."""
        return tuple(self._lost(request) for request in requests)

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result]]:
        """The result of every request with its index.

        Raises:
            DataError: a continuation is empty, or alone longer than the model's context.
        """
        for index, request in enumerate(requests):
            if isinstance(request, Choices):
                yield index, self._choices(request)
            elif isinstance(request, Likelihood):
                found = self._pairs([self._encode(request.context, request.continuation)], request.item)
                logprob, greedy, tokens, cut = found[0]
                yield index, LikelihoodScore(logprob, greedy, tokens, cut)
            elif isinstance(request, Rolling):
                yield index, self._rolling(request)
            else:
                yield index, self._generated(request)

    def _lost(self, request: Request) -> int:
        if isinstance(request, Rolling):
            return 0
        if isinstance(request, Generation):
            room = self._longest - request.max_new_tokens
            return max(0, len(self._ids(request.context)) - max(1, room))
        options = request.options if isinstance(request, Choices) else (request.continuation,)
        pairs = [self._encode(request.context, option) for option in options]
        return max(0, *(len(before) + len(after) - 1 - self._longest for before, after in pairs))

    def _choices(self, request: Choices) -> ChoiceScores:
        found = self._pairs([self._encode(request.context, o) for o in request.options], request.item)
        base = None
        if request.unconditional is not None:
            alone = [self._encode(request.unconditional, option) for option in request.options]
            base = tuple(logprob for logprob, _, _, _ in self._pairs(alone, request.item))
        return ChoiceScores(
            logprobs=tuple(logprob for logprob, _, _, _ in found),
            tokens=tuple(tokens for _, _, tokens, _ in found),
            unconditional=base,
            cut=max(cut for _, _, _, cut in found),
        )

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=True)["input_ids"]
        return found

    def _start(self) -> int:
        """What an empty context is: the token that texts begin with."""
        known = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        found: int = next(token for token in known if token is not None)
        return found

    def _encode(self, context: str, continuation: str) -> Pair:
        """Tokens before and of the continuation, as lm-evaluation-harness cuts them."""
        if not context:
            after: list[int] = self._tokenizer(continuation, add_special_tokens=False)["input_ids"]
            return [self._start()], after
        blanks = len(context) - len(context.rstrip())
        if blanks:
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        before, whole = self._ids(context), self._ids(context + continuation)
        return before, whole[len(before) :]

    def _pairs(self, pairs: Sequence[Pair], item: str) -> list[tuple[float, bool, int, int]]:
        """Log-probability, greediness, tokens and cut tokens of each continuation."""
        found = []
        for start in range(0, len(pairs), self._size):
            found += self._batch(pairs[start : start + self._size], item)
        return found

    def _batch(self, pairs: Sequence[Pair], item: str) -> list[tuple[float, bool, int, int]]:
        for _, after in pairs:
            if not after or len(after) > self._longest:
                size = "no token" if not after else f"{len(after)} tokens, of {self._longest} at most"
                raise DataError(f"item {item}: a continuation has {size}, and can't be scored")
        whole = [(before + after)[-(self._longest + 1) :] for before, after in pairs]
        width = max(len(ids) - 1 for ids in whole)
        device = next(self._module.parameters()).device
        inputs = torch.zeros(len(whole), width, dtype=torch.long, device=device)
        mask = torch.zeros_like(inputs)
        for row, ids in enumerate(whole):
            inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1], device=device)
            mask[row, : len(ids) - 1] = 1
        logits = self._module(input_ids=inputs, attention_mask=mask).logits
        logits = logits[:, logits.shape[1] - width :]
        found = []
        for row, (ids, (before, after)) in enumerate(zip(whole, pairs, strict=True)):
            end = len(ids) - 1
            logprobs = logits[row, end - len(after) : end].float().log_softmax(dim=-1)
            wanted = torch.tensor(after, device=device)
            total = float(logprobs.gather(1, wanted[:, None]).double().sum())
            greedy = bool((logprobs.argmax(dim=-1) == wanted).all())
            found.append((total, greedy, len(after), len(before) + len(after) - len(ids)))
        return found

    def _rolling(self, request: Rolling) -> RollingScore:
        """Each token once, in windows as wide as the model's context, none of them overlapping."""
        ids: list[int] = self._tokenizer(request.text, add_special_tokens=False)["input_ids"]
        pairs: list[Pair] = []
        last = self._start()
        for start in range(0, len(ids), self._longest):
            window = ids[start : start + self._longest]
            if start and len(window) < self._longest:
                # the last window is filled up with tokens that were scored before
                begin = len(ids) - self._longest
                pairs.append((ids[begin - 1 : start], window))
            else:
                pairs.append(([last], window))
            last = window[-1]
        found = self._pairs(pairs, request.item)
        return RollingScore(
            logprob=sum(logprob for logprob, _, _, _ in found),
            tokens=len(ids),
            words=len(request.text.split()),
            bytes=len(request.text.encode()),
        )

    def _generated(self, request: Generation) -> Generated:
        ids = self._ids(request.context) or [self._start()]
        room = max(1, self._longest - request.max_new_tokens)
        kept = ids[-room:]
        device = next(self._module.parameters()).device
        prompt = torch.tensor([kept], device=device)
        made: Any = self._module.generate(  # type: ignore[operator]
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
            stop_strings=list(request.stop) or None,
            tokenizer=self._tokenizer,
        )
        new = made[0, prompt.shape[1] :]
        text: str = self._tokenizer.decode(new, skip_special_tokens=True)
        ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        return Generated(text[: min(ends)] if ends else text, len(new), len(ids) - len(kept))
