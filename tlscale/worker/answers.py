"""How each kind of model answers: continuations, filled masks, classes and their shares, or embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tlscale.data.chat import apply_template, messages_of
from tlscale.data.clips import spectrogram
from tlscale.data.collate import collate
from tlscale.data.examples import Example
from tlscale.data.pixels import decode
from tlscale.data.tokens import begun, encode
from tlscale.errors import UsageError
from tlscale.models.load import load_base
from tlscale.models.names import as_peft
from tlscale.models.taskheads import spans
from tlscale.planning.inputs import input_role
from tlscale.planning.tasks import task_sizes
from tlscale.planning.types import Head, Plan
from tlscale.recipe.types import CLASSIFICATION, WITHOUT_TEXT
from tlscale.sources import Columns, Row, resolve
from tlscale.sources.rows import PLACE
from tlscale.worker.alone import note, result
from tlscale.worker.chain import Job
from tlscale.worker.measure import Judge, label_examples

Answer = dict[str, Any]
TOP = 3
SHARPNESS = 20.0  # of zero-shot similarities, as in the evaluation


@dataclass(frozen=True)
class Asked:
    """One input: a text, a list of messages, an image or a clip.

    `typed` is one given as it stands; a path inside a data `file` is relative to that file.
    """

    row: Row
    content: Any
    typed: bool
    file: str | None = None


def answerer(job: Job, max_new_tokens: int) -> Callable[[list[Asked]], list[Answer]]:
    """The run's model as a function from inputs to answers, one for each.

    Raises:
        UsageError: the run has no result, or its base alone can't answer.
    """
    task = job.plan.recipe.model.task
    if task in CLASSIFICATION and _headless(job.plan):
        if task in WITHOUT_TEXT:
            raise UsageError(
                f"{job.layout.root}: nothing was trained, and the base has no head for these labels: "
                "nothing can be classified with it"
            )
        return partial(_classes, job, _ByLabelNames(job))
    module = result(job).eval()
    if task == "causal-lm":
        return partial(_continuations, job, module, max_new_tokens)
    if task == "masked-lm":
        return partial(_filled, job, module)
    if task == "sentence-embedding":
        return partial(_embeddings, job, module)
    return partial(_classes, job, module)


def _headless(plan: Plan) -> bool:
    return not plan.stages and plan.facts.head_is_new


class _ByLabelNames(nn.Module):
    """A classifier without training: how similar a text is to each label's name, as logits."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        plan = job.plan
        model = plan.recipe.model.model_copy(update={"task": "sentence-embedding"})
        head = Head(kind="native")
        self.encoder = load_base(model, plan.facts, head=head, world=plan.world, seed=plan.seed)
        self.encoder.to(job.runtime.device).eval()
        judge = Judge(plan, job.layout, job.runtime, job.processor, {})
        batch = judge.collate(label_examples(judge))
        batch.pop("labels")
        with torch.inference_mode(), job.runtime.accelerator.autocast():
            self.names = _unit(self.encoder(**batch).embeddings)

    def forward(self, **inputs: Any) -> Any:
        similar = _unit(self.encoder(**inputs).embeddings) @ self.names.T
        return _Logits(similar * SHARPNESS)


@dataclass(frozen=True)
class _Logits:
    logits: torch.Tensor


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return functional.normalize(vectors.float(), dim=-1)


def _classes(job: Job, module: nn.Module, batch: list[Asked]) -> list[Answer]:
    """The most probable class of each input, and the three most probable ones."""
    task = job.plan.recipe.model.task
    if task in WITHOUT_TEXT:
        perceived = _pixels if task == "image-classification" else _heard
        inputs = _collated(job, [perceived(job, asked) for asked in batch], task)
    else:
        inputs = _collated(job, [_tokens(job, asked) for asked in batch], "sequence-classification")
    made: Any = module(**inputs)
    train = job.plan.recipe.data.train
    if train is not None and train.tasks is not None:
        return _by_task(job, made.logits.float())
    shares, classes = made.logits.float().softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    found = []
    for probabilities, order in zip(shares[:, :TOP].tolist(), classes[:, :TOP].tolist(), strict=True):
        top = [
            {"label": job.plan.facts.labels[index], "probability": probability}
            for index, probability in zip(order, probabilities, strict=True)
        ]
        found.append({**top[0], "top": top})
    return found


def _by_task(job: Job, logits: torch.Tensor) -> list[Answer]:
    """The most probable class of each task: `tasks` has one answer for each."""
    labels = job.plan.facts.labels
    sizes = task_sizes(labels)
    found: list[Answer] = [{"tasks": {}} for _ in logits]
    for (name, _), (first, end) in zip(sizes, spans(sizes), strict=True):
        shares, classes = logits[:, first:end].softmax(dim=-1).max(dim=-1)
        for answer, share, index in zip(found, shares.tolist(), classes.tolist(), strict=True):
            answer["tasks"][name] = {"label": labels[first + index], "probability": share}
    return found


def _filled(job: Job, module: nn.Module, batch: list[Asked]) -> list[Answer]:
    """The text with the most probable token in each mask's place, and the three most probable ones."""
    tokenizer = job.processor
    mask = tokenizer.mask_token
    texts = [str(asked.content).replace(PLACE, mask) for asked in batch]
    examples = [
        _tokens(job, replace(asked, content=text)) for asked, text in zip(batch, texts, strict=True)
    ]
    for example in examples:
        if tokenizer.mask_token_id not in (example.tokens or ()):
            raise UsageError(
                f"{example.where}: nothing to fill in; write {PLACE} or {mask} where a word is missing"
            )
    inputs = _collated(job, examples, "sequence-classification")
    made: Any = module(**inputs)
    found = []
    for text, ids, logits in zip(texts, inputs["input_ids"], made.logits.float(), strict=True):
        at_masks = logits[ids == tokenizer.mask_token_id].softmax(dim=-1)
        shares, tokens = at_masks.sort(dim=-1, descending=True, stable=True)
        masks = [
            [
                {"token": tokenizer.decode([token]).strip(), "probability": share}
                for token, share in zip(order[:TOP], probabilities[:TOP], strict=True)
            ]
            for order, probabilities in zip(tokens.tolist(), shares.tolist(), strict=True)
        ]
        for best in masks:
            text = text.replace(mask, best[0]["token"], 1)
        found.append({"completion": text, "masks": masks})
    return found


def _embeddings(job: Job, module: nn.Module, batch: list[Asked]) -> list[Answer]:
    """Each input's embedding, of length 1, as the evaluation compares them."""
    inputs = _collated(job, [_tokens(job, asked) for asked in batch], "sequence-classification")
    made: Any = module(**inputs)
    return [{"embedding": [round(x, 7) for x in vector]} for vector in _unit(made.embeddings).tolist()]


def _collated(job: Job, examples: Sequence[Example], form: Any) -> dict[str, Any]:
    pad = getattr(job.processor, "pad_token_id", None) or 0
    inputs = collate(examples, task=form, pad_id=pad, device=job.runtime.device)
    inputs.pop("labels")
    return inputs


def _tokens(job: Job, asked: Asked) -> Example:
    """Tokens as in training; whatever the recipe says of longer rows, a longer input is cut."""
    ids = job.processor(asked.content, verbose=False)["input_ids"]
    if len(ids) > job.plan.max_length:
        note(f"{asked.row.where}: {len(ids):,} tokens, cut to {job.plan.max_length:,}")
        ids = job.processor(asked.content, truncation=True, max_length=job.plan.max_length)["input_ids"]
    if not ids:
        raise UsageError(f"{asked.row.where}: the tokenizer makes nothing of {asked.content[:40]!r}")
    return Example(where=asked.row.where, tokens=list(ids), label=0)


def _pixels(job: Job, asked: Asked) -> Example:
    content = resolve(asked.content) if asked.typed else asked.content
    folder: Path | None = None if asked.file is None else resolve(asked.file).resolve().parent
    picture = decode(asked.row, content, folder)
    pixels = job.processor(images=picture, return_tensors="pt")["pixel_values"][0].float()
    return Example(where=asked.row.where, pixels=pixels, label=0)


def _heard(job: Job, asked: Asked) -> Example:
    content = resolve(asked.content) if asked.typed else asked.content
    folder: Path | None = None if asked.file is None else resolve(asked.file).resolve().parent
    heard = spectrogram(asked.row, content, folder, job.processor)
    return Example(where=asked.row.where, pixels=heard.values, label=0)


def _continuations(job: Job, module: nn.Module, max_new_tokens: int, batch: list[Asked]) -> list[Answer]:
    """What the model goes on with, greedily.

    Prompts are padded on the left to one length. Only prompts of one length go together under virtual
    tokens, where PEFT gives padding places of its own, and where the model's longest sequence ends a
    continuation early.
    """
    longest = job.plan.facts.architecture.max_length or None
    prompts = [_prompt(job, asked, longest) for asked in batch]
    peft = as_peft(module)
    apart = peft is not None and peft.active_peft_config.is_prompt_learning
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        ends_early = longest is not None and len(prompt) + max_new_tokens > longest
        groups.setdefault(len(prompt) if apart or ends_early else 0, []).append(index)
    found: dict[int, str] = {}
    for group in groups.values():
        made = _generated(job, module, max_new_tokens, [prompts[index] for index in group], longest)
        found |= dict(zip(group, made, strict=True))
    return [{"completion": found[index]} for index in range(len(batch))]


def _generated(
    job: Job, module: nn.Module, max_new_tokens: int, prompts: list[list[int]], longest: int | None
) -> list[str]:
    tokenizer, device = job.processor, job.runtime.device
    width = max(len(ids) for ids in prompts)
    new = max_new_tokens if longest is None else min(max_new_tokens, longest - width)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    ends = getattr(module.generation_config, "eos_token_id", None)
    stops = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    language_model: Any = module
    with warnings.catch_warnings():
        # said of every batch under virtual tokens; without padding there is nothing to place
        warnings.filterwarnings("ignore", "Position ids are not supported", UserWarning)
        made = language_model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=sorted(stops) or None,
        )
    return [tokenizer.decode(row[width:], skip_special_tokens=True) for row in made]


def _prompt(job: Job, asked: Asked, longest: int | None) -> list[int]:
    """The prompt's tokens with one BOS; an overlong one loses its beginning, as in training."""
    tokenizer = job.processor
    text = _rendered(asked, tokenizer) if input_role(job.plan) == "messages" else asked.content
    plain = encode(tokenizer, [text])[0].ids
    ids, _ = begun(tokenizer, plain, [False] * len(plain))
    if not ids:
        raise UsageError(f"{asked.row.where}: the tokenizer makes nothing of {text[:40]!r}")
    if longest is None or len(ids) < longest:
        return ids
    note(f"{asked.row.where}: {len(ids):,} tokens, the last {longest // 2:,} were kept")
    first = 1 if ids[:1] == [tokenizer.bos_token_id] else 0
    return ids[:first] + ids[len(ids) - longest // 2 + first :]


def _rendered(asked: Asked, tokenizer: Any) -> str:
    """The conversation up to where the assistant speaks; a last answer that is there is left out."""
    if not tokenizer.chat_template:
        raise UsageError(
            f"{tokenizer.name_or_path} has no chat template; name a Jinja file in model.chat_template"
        )
    row = Row({"messages": asked.content}, asked.row.where)
    messages = messages_of(row, Columns("messages", {"messages": "messages"}))
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    if not messages:
        raise UsageError(f"{asked.row.where}: no message to answer")
    return apply_template(row, tokenizer, messages, True)
