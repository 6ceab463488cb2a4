"""The scorer: requests -> token paths -> passes -> results, on one process or many, resumable.

Every process is given all requests and makes the same passes of them; each runs a consecutive share, so
neither the number of processes nor a restart changes what is computed together, nor any digit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

from torch import nn

from tlscale.evaluation.requests import (
    Generated,
    Generation,
    Request,
    Result,
    Rolling,
)
from tlscale.evaluation.scoring import budget as budgets
from tlscale.evaluation.scoring.book import Book, Tally, generations
from tlscale.evaluation.scoring.causal import TreeExecutor
from tlscale.evaluation.scoring.encdec import EncoderDecoderExecutor
from tlscale.evaluation.scoring.encode import Cutter, Path, context_length
from tlscale.evaluation.scoring.executor import Executor
from tlscale.evaluation.scoring.generate import Generator, Prompt
from tlscale.evaluation.scoring.journal import Journal, digest_of, merged
from tlscale.evaluation.scoring.progress import Progress, silent
from tlscale.evaluation.scoring.schedule import arrange, shares


@dataclass(frozen=True)
class Share:
    """This process among `world`; `collect` gives the rows of all processes to each of them."""

    rank: int = 0
    world: int = 1
    collect: Callable[[list[Any]], list[Any]] = list


class ModelScorer:
    """Answers requests with a causal or encoder-decoder language model; a `Scorer`.

    Args:
        module: The model, an adapter or a quantized one included, in evaluation mode and on its device.
        tokenizer: Its tokenizer.
        length: Tokens of the model's context; None for what its configuration says.
        budget: Tokens of one pass; None for the usual number of the device, or, once there is work enough
            for it, for the quickest that a search finds. It changes the speed, not results.
        share: This process among others; all of them must be given the same requests.
        journal: A folder for answers as they come; the same requests on the same model go on from there.
        note: Is told what the user should know, such as a fallback.
        progress: Is told after every pass.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        *,
        length: int | None = None,
        budget: int | None = None,
        share: Share | None = None,
        journal: File | None = None,
        note: Callable[[str], None] = silent,
        progress: Callable[[Progress], None] = silent,
    ) -> None:
        self._module = module.eval()
        self._device = next(module.parameters()).device
        self._two_sided = bool(getattr(module.config, "is_encoder_decoder", False))
        self._budget = budget or budgets.usual(self._device)
        self._searches = budget is None and not self._two_sided
        self.share = share or Share()
        self._folder = journal
        self._note, self._progress = note, progress
        length = length or context_length(module.config, tokenizer)
        self.cutter = Cutter(tokenizer, length, self._two_sided)

    def overflow(self, requests: Sequence[Request]) -> tuple[int, ...]:
        """How many tokens each request's context is too long for the model; 0 where it fits."""
        book, asked = Book.of(self.cutter, requests), generations(requests)
        cut = dict(zip(asked, (path.cut for path in self._contexts(asked)), strict=True))
        for index, places in enumerate(book.of_request):
            if not isinstance(requests[index], Rolling):
                cut.setdefault(index, max((book.paths[place].cut for place in places), default=0))
        return tuple(cut.get(index, 0) for index in range(len(requests)))

    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result]]:
        """The result of every request with its index, each as soon as it is there.

        With several processes each gets all results, when all have finished.

        Raises:
            DataError: an option or continuation is empty, or alone longer than the model's context.
            DoesNotFitError: memory doesn't suffice for a single token.
        """
        asked, book = generations(requests), Book.of(self.cutter, requests)
        yield from self._likelihoods(requests, book)
        yield from self._generations(asked)

    def _executor(self, paths: Sequence[Path]) -> Executor:
        if self._two_sided:
            return EncoderDecoderExecutor(self._module, paths, budget=self._budget, device=self._device)
        made = self._tree(paths)
        if not self._searches or not budgets.worth(sum(made.costs), self._device):
            return made
        self._searches = False
        before, self._budget = self._budget, self._found(made)
        return made if self._budget == before else self._tree(paths)

    def _tree(self, paths: Sequence[Path]) -> TreeExecutor:
        return TreeExecutor(self._module, paths, budget=self._budget, device=self._device, note=self._note)

    def _found(self, made: TreeExecutor) -> int:
        """The quickest budget, found by the first process; an evaluation that goes on keeps it."""
        trial = made.trial()
        if trial is None:
            return self._budget
        kept = None
        if self._folder is not None:
            kept = Journal(self._folder, f"budget-{digest_of(self._module, (), self._device.type)}", 0)
        known = [int(row["budget"]) for row in kept.read()] if kept else []
        if self.share.rank == 0 and not known:
            known = [budgets.search(trial, budgets.sizes(self._device))]
            self._note(f"{known[0]:,} tokens a pass are the quickest here")
            if kept:
                kept.write({"budget": known[0]})
        return int(self.share.collect(known[-1:] if self.share.rank == 0 else [])[0])

    def _journal(self, paths: Sequence[Path], *settings: object) -> Journal | None:
        if self._folder is None:
            return None
        digest = digest_of(self._module, paths, self._budget, *settings)
        return Journal(self._folder, digest, self.share.rank)

    def _likelihoods(self, requests: Sequence[Request], book: Book) -> Iterator[tuple[int, Result]]:
        tally = Tally(requests, book)
        yield from tally.empty()
        if not book.paths:
            return
        executor = self._executor(book.paths)
        journal = self._journal(book.paths)
        known = merged(journal.read() if journal else [], "pass")
        for row in known.values():
            yield from tally.add(row["answers"])
        mine = set(shares(executor.costs, self.share.world)[self.share.rank]) - known.keys()
        todo = executor.needed(mine)
        total, done = sum(executor.costs[i] for i in todo), 0
        made = []
        self._progress(Progress(0, total, tally.answered, len(book.of_request)))
        for index in todo:
            answered = executor.run(index).per_path()
            done += executor.costs[index]
            if index in mine:
                if journal:
                    journal.write({"pass": index, "answers": answered})
                made.append((index, answered))
                if self.share.world == 1:
                    yield from tally.add(answered)
            self._progress(Progress(done, total, tally.answered, len(book.of_request)))
        if self.share.world > 1:
            for index, answered in sorted(self.share.collect(made)):
                if index not in known:
                    yield from tally.add(answered)

    def _contexts(self, asked: Mapping[int, Generation]) -> list[Path]:
        texts, room = [r.context for r in asked.values()], [r.max_new_tokens for r in asked.values()]
        return self.cutter.contexts(texts, room)

    def _generations(self, asked: Mapping[int, Generation]) -> Iterator[tuple[int, Result]]:
        if not asked:
            return
        indices, wanted, paths = list(asked), list(asked.values()), self._contexts(asked)
        journal = self._journal(paths, [(r.stop, r.max_new_tokens) for r in wanted])
        known = merged(journal.read() if journal else [], "generated")
        for at, row in known.items():
            yield indices[at], Generated(row["text"], row["tokens"], paths[at].cut)
        order = arrange([path.inputs for path in paths]).order
        costs = [len(paths[at].inputs) + wanted[at].max_new_tokens for at in order]
        mine = [order[i] for i in shares(costs, self.share.world)[self.share.rank]]
        prompts = [
            Prompt(at, paths[at].inputs, wanted[at].stop, wanted[at].max_new_tokens)
            for at in mine
            if at not in known
        ]
        made = []
        self._progress(Progress(0, len(prompts), len(known), len(asked)))
        for at, text, tokens in Generator(self._module, self.cutter, self._budget, self._note).run(prompts):
            if journal:
                journal.write({"generated": at, "text": text, "tokens": tokens})
            made.append((at, text, tokens))
            if self.share.world == 1:
                yield indices[at], Generated(text, tokens, paths[at].cut)
            self._progress(Progress(len(made), len(prompts), len(known) + len(made), len(asked)))
        if self.share.world > 1:
            for at, text, tokens in sorted(self.share.collect(made)):
                if at not in known:
                    yield indices[at], Generated(text, tokens, paths[at].cut)
