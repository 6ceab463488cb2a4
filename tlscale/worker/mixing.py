"""`tlscale soup`: several results in one model, or one drawn back to its base, if that is any better."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from tlscale.data.collate import collate
from tlscale.data.examples import Example, prepare
from tlscale.engine.objectives import task
from tlscale.engine.step import mean_objective
from tlscale.errors import UsageError, VerificationError
from tlscale.models import artifact, delta, headfiles
from tlscale.models.heads import PooledClassifier, core, with_core
from tlscale.models.load import load_base
from tlscale.models.names import HEAD, as_peft, canonical
from tlscale.models.quiet import peft_errors, quiet
from tlscale.models.saving import hashes, into_place, saving
from tlscale.planning.compile import read_plan
from tlscale.planning.types import Plan
from tlscale.recipe.base import Frozen
from tlscale.runs.layout import MANIFEST, RunLayout
from tlscale.runs.record import write_json
from tlscale.worker import hiding
from tlscale.worker.alone import alone
from tlscale.worker.chain import Job, finished, starting_point
from tlscale.worker.examples import load_rows

ROLES = {"validation": "target", "replay": "kept"}


class Request(Frozen):
    """What `tlscale soup` was asked for; the first run is the one that the worker is on."""

    others: tuple[str, ...] = ()
    method: Literal["mean", "ties", "dare"] = "mean"
    alphas: tuple[float, ...] = (0.25, 0.5, 0.75)
    density: float = 0.2
    output: str


class Scored(Frozen):
    """A candidate, and its mean loss in nats on validation rows (target) and replay rows (kept)."""

    name: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Kitchen:
    """A module to try weights in, the base's own, and what each try is scored on."""

    job: Job
    module: nn.Module
    base: Mapping[str, Tensor]
    fixed: frozenset[str]
    roles: Mapping[str, Sequence[Example]]

    def score(self, name: str, change: Mapping[str, Tensor]) -> Scored:
        """Puts base + change into the module and measures it."""
        delta.put(self.module, self.base, change)
        plan, runtime = self.job.plan, self.job.runtime
        pad_id = getattr(self.job.processor, "pad_token_id", None) or 0
        found = {
            ROLES[role]: mean_objective(
                self.module, rows, [(1.0, task)], runtime=runtime,
                collate=partial(collate, task=plan.recipe.model.task, pad_id=pad_id),
                size=plan.recipe.train.per_device_eval_batch_size,
            )
            for role, rows in self.roles.items()
        }  # fmt: skip
        return Scored(name=name, scores=found)


def soup(plan: Plan, layout: RunLayout, as_json: bool, request: str = "{}") -> None:
    """Mixes, scores every member and every mixture on the same rows, and writes the best mixture.

    Raises:
        UsageError: there are no rows to choose by, or a run is of another model.
        VerificationError: no mixture is better than the members in anything; nothing is written.
    """
    asked = Request.model_validate_json(request)
    kitchen = _kitchen(alone(plan, layout))
    paths = (str(layout.root), *asked.others)
    changes = [_change(kitchen, RunLayout(Path(path))) for path in paths]
    zero = {name: tensor * 0 for name, tensor in kitchen.base.items()}
    members = [kitchen.score(path, change) for path, change in zip(paths, changes, strict=True)]
    if len(changes) == 1:
        members.insert(0, kitchen.score("base", zero))
    mixtures = _mixtures(asked, changes, kitchen.fixed)
    tried = [kitchen.score(name, change) for name, change in mixtures.items()]
    good = [one for one in tried if not any(_beats(member, one) for member in members)]
    _say([*members, *tried], good, as_json, asked.output)
    if not good:
        raise VerificationError(
            "no mixture was better than its members in anything, so none is written; keep the best member"
        )
    best = min(good, key=lambda one: sum(one.scores.values()))
    _write(kitchen, mixtures[best.name], best, asked, members)


def _mixtures(
    asked: Request, changes: Sequence[Mapping[str, Tensor]], fixed: frozenset[str]
) -> dict[str, dict[str, Tensor]]:
    if len(changes) == 1:
        (own,) = changes
        return {
            f"alpha {alpha:g}": delta.scaled(own, alpha) | {name: own[name] for name in fixed}
            for alpha in asked.alphas
        }
    if asked.method == "ties":
        return {f"ties {asked.density:g}": delta.ties(changes, density=asked.density)}
    if asked.method == "dare":
        dropped = [delta.dare(one, density=asked.density, seed=seed) for seed, one in enumerate(changes)]
        return {f"dare {asked.density:g}": delta.mean(dropped)}
    return {"mean": delta.mean(changes)}


def _beats(member: Scored, mixture: Scored) -> bool:
    """Whether a member is at least as good in everything and better in something."""
    pairs = [(member.scores[name], mixture.scores[name]) for name in mixture.scores]
    return all(one <= other for one, other in pairs) and any(one < other for one, other in pairs)


def _kitchen(job: Job) -> Kitchen:
    plan, data = job.plan, job.plan.recipe.data
    roles = {}
    for role, (source, rows) in load_rows(plan).items():
        if role in ROLES:
            examples = prepare(
                rows, source, task=plan.recipe.model.task, processor=job.processor,
                labels=plan.facts.labels, max_length=plan.max_length, overflow=data.overflow,
                loss_on=data.loss_on,
            ).examples  # fmt: skip
            roles[role] = hiding.fixed(plan, job.processor, examples)
    if "validation" not in roles:
        raise UsageError(
            f"{job.layout.root}: its recipe has no validation rows to choose by, and test rows are not for "
            "choosing; run it with data.validation or data.validation_split"
        )
    model = plan.recipe.model.model_copy(update={"quantization": "none"})
    head = plan.stages[-1].stage.head
    module = load_base(model, plan.facts, head=head, world=plan.world, seed=plan.seed)
    module.to(job.runtime.device)
    fresh = plan.facts.head_is_new or head.kind == "pooled"
    fixed = frozenset(n for n, name in canonical(module).items() if fresh and name.startswith(HEAD))
    return Kitchen(job, module, delta.weights_of(module), fixed, roles)


def _change(kitchen: Kitchen, layout: RunLayout) -> dict[str, Tensor]:
    """What a run's last stage changed, as one change of weights of the base."""
    mine, plan = kitchen.job.plan, read_plan(layout.plan)
    if plan.facts.tensors != mine.facts.tensors or plan.facts.labels != mine.facts.labels:
        raise UsageError(
            f"{layout.root}: is of another base or other labels than {kitchen.job.layout.root}"
        )
    if not plan.stages or not finished(layout, plan.stages[-1].stage.name):
        raise UsageError(f"{layout.root}: has left no result yet")
    last = plan.stages[-1]
    here = replace(kitchen.job, plan=plan.model_copy(update={"world": mine.world}), layout=layout)
    model = starting_point(here, last)[0].model_copy(update={"quantization": "none"})
    folder = layout.artifact(last.stage.name)
    if artifact.read_manifest(folder)["kind"] == "adapters":
        raise UsageError(f"{layout.root}: it has several adapters, so there is no one change to mix")
    module = artifact.load(folder, model=model, facts=plan.facts, world=mine.world)
    if as_peft(core(module)) is not None:
        inner: Any = core(module)
        if not hasattr(inner.base_model, "merge_and_unload"):
            raise UsageError(f"{layout.root}: its adapter adds no change of weights, so it can't be mixed")
        with peft_errors(str(folder)):
            module = with_core(module, inner.merge_and_unload())
    module.to(kitchen.job.runtime.device)
    return delta.difference(delta.weights_of(module), kitchen.base)


def _write(
    kitchen: Kitchen, change: Mapping[str, Tensor], best: Scored, asked: Request, members: Sequence[Scored]
) -> None:
    delta.put(kitchen.module, kitchen.base, change)
    plan, target, inner = kitchen.job.plan, Path(asked.output), core(kitchen.module)
    with saving(target) as partial_folder, quiet():
        saved: Any = inner
        saved.save_pretrained(str(partial_folder))
        if isinstance(kitchen.module, PooledClassifier):
            headfiles.save(kitchen.module, partial_folder, plan.facts.labels)
        kitchen.job.processor.save_pretrained(str(partial_folder))
        told = {
            "kind": "checkpoint", "task": plan.recipe.model.task, "base": plan.facts.model,
            "soup": best.model_dump(), "members": [member.model_dump() for member in members],
            "files": hashes(partial_folder),
        }  # fmt: skip
        write_json(partial_folder / MANIFEST, told)
        into_place(partial_folder, target)


def _say(tried: Sequence[Scored], good: Sequence[Scored], as_json: bool, output: str) -> None:
    if as_json:
        rows = [{**one.model_dump(), "kept": one in good} for one in tried]
        print(json.dumps({"tried": rows, "output": output if good else None}))
        return
    names = list(tried[0].scores)
    width = max(len(one.name) for one in tried)
    print(f"{'':<{width}}  " + "".join(f"{name + ' loss':>13}" for name in names))
    for one in tried:
        cells = "".join(f"{one.scores[name]:>13.4f}" for name in names)
        print(f"{one.name:<{width}}  {cells}{'   not beaten by a member' if one in good else ''}")
    if good:
        best = min(good, key=lambda one: sum(one.scores.values()))
        print(f"soup      {best.name}   {output}")
