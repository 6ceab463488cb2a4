"""Causal language models: paths as passes over a stack of keys and values.

The first tree is compared with the plain computation of one of its paths; where they differ, or the model
refuses the mask, everything is computed plainly and a note says so. When memory runs out a pass is split
and the budget halved for those after it, with the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn

from tlscale.errors import DoesNotFitError
from tlscale.evaluation.scoring import schedule as plans
from tlscale.evaluation.scoring.budget import timed
from tlscale.evaluation.scoring.encode import Path
from tlscale.evaluation.scoring.executor import Answered, joined
from tlscale.evaluation.scoring.forward import Forward, masking
from tlscale.evaluation.scoring.plain import score_rows
from tlscale.evaluation.scoring.schedule import Pack, Pass, Push
from tlscale.evaluation.scoring.stack import memory_ran_out
from tlscale.evaluation.scoring.tree import Tokens, branches, line

# The mean difference between a token's log-probability in the tree and alone that is taken for rounding.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
COARSE = 0.1
REFUSALS = (ValueError, TypeError, IndexError, KeyError, AttributeError, RuntimeError, NotImplementedError)


class TreeExecutor:
    """Passes over one model; see `Executor`."""

    def __init__(
        self,
        module: nn.Module,
        paths: Sequence[Path],
        *,
        budget: int,
        device: torch.device,
        note: Callable[[str], None],
    ) -> None:
        self._module, self._paths, self._device, self._note = module, paths, device, note
        self._budget = self._least = budget
        self._tree = plans.arrange([path.inputs for path in paths])
        self._passes = plans.schedule(self._tree, budget)
        self.costs = [plans.tokens_of(self._tree, step) for step in self._passes]
        self._forward: Forward | None = None
        self._unchecked = {"line", "tree"}
        masks = masking(module.config)
        if masks is None or virtual_tokens(module):
            note(
                f"{name_of(module)}: its attention can't take a tree mask; every path is computed by itself"
            )
        else:
            self._forward = Forward(module, masks, self._capacity(), device)

    def trial(self) -> Callable[[int], float] | None:
        """Seconds of a pass of so many tokens like those of this tree; None where there are no trees."""
        masks = masking(self._module.config)
        if self._forward is None or masks is None:
            return None
        own = sum(self.costs) // max(1, len(self._paths))
        return timed(self._module, masks, self._device, own)

    def needed(self, wanted: set[int]) -> list[int]:
        """The wanted passes and those that put their prefixes on the stack."""
        if self._forward is None:
            return sorted(wanted)
        return plans.with_ancestors(self._passes, wanted)

    def run(self, index: int) -> Answered:
        """The answers of one pass."""
        step = self._passes[index]
        if self._forward is None:
            return self._plainly(step)
        kind = "line" if isinstance(step, Push) or len(step.members) == 1 else "tree"
        if kind in self._unchecked and self._asked(step):
            self._unchecked.remove(kind)
            return self._first(step)
        return self._tried(step)

    def _first(self, step: Pass) -> Answered:
        """The first pass of a kind, beside a plain computation of its last path."""
        try:
            found = self._tried(step)
            wrong = self._difference(step, found)
        except REFUSALS as error:
            if memory_ran_out(error):
                raise
            wrong = f"{type(error).__name__}: {error}"
        if wrong is None:
            return found
        self._forward = None
        self._note(
            f"{name_of(self._module)}: the tree of prefixes doesn't give what the plain computation gives "
            f"({wrong}); every text is computed by itself"
        )
        return self._plainly(step)

    def _difference(self, step: Pass, found: Answered) -> str | None:
        asked = self._asked(step)[-1:]
        plain = score_rows(self._module, asked, self._budget, self._device)
        mine = found.owners == asked[0][0]
        gap = float(np.abs(found.logprobs[mine] - plain.logprobs).mean())
        allowed = TOLERANCE.get(precision(self._module), COARSE)
        return None if gap <= allowed else f"a token's log-probability is off by {gap:.2g} on average"

    def _tried(self, step: Pass) -> Answered:
        """A pass, split into smaller ones where memory does not suffice."""
        if plans.tokens_of(self._tree, step) > 4 * self._least or self._too_large(step):
            return joined([self._tried(part) for part in self._parts(step)])
        try:
            return self._run(step)
        except (RuntimeError, MemoryError) as error:
            if not memory_ran_out(error):
                raise
            if self._least == 1:
                raise DoesNotFitError(
                    f"memory ran out on a pass of one token ({error}); score on a larger device"
                ) from error
            self._least //= 2
            self._note(f"memory ran out: from here on {self._least} tokens a pass")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return joined([self._tried(part) for part in self._parts(step)])

    def _too_large(self, step: Pass) -> bool:
        return isinstance(step, Pack) and plans.tokens_of(self._tree, step) > self._least < self._budget

    def _parts(self, step: Pass) -> list[Pass]:
        if isinstance(step, Pack):
            runs = [
                [member for _, member in run]
                for _, run in groupby(enumerate(step.members), lambda pair: pair[1] - pair[0])
            ]
            groups = [(run[0], run[-1] + 1) for run in runs]
            return plans.level(self._tree, groups, step.depth, step.under, self._least)
        middle = (step.depth + step.upto) // 2
        if middle == step.depth:
            return [step]
        return [replace(step, upto=middle), replace(step, depth=middle)]

    def _run(self, step: Pass) -> Answered:
        assert self._forward is not None
        tokens = self._tokens(step)
        got = self._forward.run(tokens)
        return Answered(tokens.owners, got.logprobs.double().numpy(), got.greedy.numpy())

    def _tokens(self, step: Pass) -> Tokens:
        members = [(self._tree.order[m], self._paths[self._tree.order[m]]) for m in step.members]
        if isinstance(step, Push):
            return line(members[0][1], step.depth, step.upto, members)
        shared = [step.depth]
        for before, member in zip(step.members, step.members[1:], strict=False):
            shared.append(int(self._tree.shared[member]) if member == before + 1 else step.depth)
        return branches(members, step.depth, shared)

    def _asked(self, step: Pass) -> list[tuple[int, Path, int, int]]:
        """Each member's questions that belong to this pass, as positions of its inputs."""
        asked = []
        for member in step.members:
            owner = self._tree.order[member]
            path = self._paths[owner]
            start = max(step.depth, len(path.inputs) - len(path.targets))
            stop = min(step.upto, len(path.inputs)) if isinstance(step, Push) else len(path.inputs)
            if start < stop:
                asked.append((owner, path, start, stop))
        return asked

    def _plainly(self, step: Pass) -> Answered:
        return score_rows(self._module, self._asked(step), self._budget, self._device)

    def _capacity(self) -> int:
        return max((s.depth + c for s, c in zip(self._passes, self.costs, strict=True)), default=1)


def precision(module: nn.Module) -> torch.dtype:
    """The coarsest precision among the parameters; of quantized ones, bytes."""
    kinds = {p.dtype for p in module.parameters()}
    return min(kinds, key=lambda kind: kind.itemsize, default=torch.float32)


def virtual_tokens(module: nn.Module) -> bool:
    """Whether an adapter puts tokens of its own before the prompt."""
    configs: Any = getattr(module, "peft_config", None) or {}
    return any(getattr(config, "is_prompt_learning", False) for config in configs.values())


def name_of(module: nn.Module) -> str:
    return str(getattr(module.config, "model_type", type(module).__name__))
