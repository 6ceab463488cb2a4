"""The account of memory per device, itemised: an estimate, in bytes.

The peak of a training step is the largest of a few moments, because gradients come to life while
activations die: at the start of the backward pass all activations and the logits' gradients are alive;
at its end all gradients; in between, one block's working set. Each item is what it holds at the moment
that is the peak, so the items add up to it. `benchmarks/memory.py` holds the account against
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlscale.planning import activations, heads, sharding
from tlscale.planning.item import MemoryItem
from tlscale.planning.rules import trainable_names
from tlscale.planning.targets import Module, targets
from tlscale.planning.tasks import LANGUAGE, PLACEWISE
from tlscale.planning.types import Batch, Facts, Stage, Tensor, World
from tlscale.recipe.types import Model

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
FULL = 4
# averages per parameter
STATES = {"adamw": 2, "sgd": 1}
OPTIMIZERS = {"adamw": "AdamW, two float32 states", "sgd": "SGD, a float32 momentum"}
# 4-bit blocks of 64 with an 8-bit constant each, and one float32 per 256 constants (arXiv:2305.14314)
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
CUDA_CONTEXT = 600_000_000
# the log-softmax of the logits, and the gradients of the loss and of the softmax
LOGITS_ALIVE = 3
# hidden widths that the last norm keeps: its input, the normalized values and its output
LAST_NORM = 3
# output layers of their own, and the embeddings that stand in for them where they are shared
OUTPUTS = ("head.lm_head.weight", *heads.DECODERS)
TIED = ("embed_tokens.weight", "wte.weight", *heads.EMBEDDINGS)


@dataclass(frozen=True)
class _Moment:
    """What is alive at one moment of a step, in bytes."""

    name: str
    gradients: float
    activations: float = 0
    logits: float = 0
    scratch: float = 0

    @property
    def total(self) -> float:
        return self.gradients + self.activations + self.logits + self.scratch


def account(
    facts: Facts, stage: Stage, batch: Batch, world: World, max_length: int, model: Model, trainable: int,
    *, hidden: float = 1.0,
) -> tuple[MemoryItem, ...]:  # fmt: skip
    """What one device holds at the peak of a training step.

    Args:
        facts: Of the base.
        stage: What is trained.
        batch: `micro` rows pass at once; with accumulation, gradients outlive a pass.
        world: Device and precision.
        max_length: Tokens of the longest row; every row is counted as that long.
        model: Its quantization and task.
        trainable: Parameters that train, with the adapter's and the head's.
        hidden: Share of the tokens that a masked language model has to find again.

    Returns:
        Items in bytes that add up to the peak.
    """
    if stage.head.kind == "pooled":
        # its own head takes the place of the architecture's, and comes in with `trainable`
        backbone = tuple(tensor for tensor in facts.tensors if not tensor.name.startswith("head."))
        facts = facts.model_copy(update={"tensors": backbone})
    trained = trainable_names(facts.tensors, stage.rules)
    own = sum(tensor.size for tensor in facts.tensors if tensor.name in trained)
    added = max(0, trainable - own)
    frozen = _frozen_bytes(facts, trained, world, model)
    moment = _peak(facts, stage, batch, world, max_length, model, trained, trainable, hidden)
    items = [
        MemoryItem(name="weights", bytes=round(frozen + FULL * own), note=_weights_note(model, world, own)),
        MemoryItem(name="adapter and head", bytes=FULL * added, note="float32" if added else ""),
        MemoryItem(name="gradients", bytes=round(moment.gradients), note=_gradients_note(batch, moment)),
        MemoryItem(
            name="optimizer",
            bytes=round(STATES[stage.update.optim] * FULL * trainable + moment.scratch),
            note=OPTIMIZERS[stage.update.optim] + (", and what the update needs" if moment.scratch else ""),
        ),
        MemoryItem(name="other weights", bytes=FULL * _copies(stage) * trainable, note=_copies_note(stage)),
        MemoryItem(
            name="activations",
            bytes=round(moment.activations),
            note=_activations_note(stage, batch, max_length),
        ),
        MemoryItem(name="logits", bytes=round(moment.logits), note="float32" if moment.logits else ""),
        _overhead(world, moment),
    ]
    return sharding.shared_out(tuple(item for item in items if item.bytes), world, facts)


def _overhead(world: World, moment: _Moment) -> MemoryItem:
    """What is held besides tensors: the CUDA context, or on a CPU what the heap keeps of freed ones.

    glibc's heap fragments under the coming and going of activations; up to as much again was measured.
    """
    if world.device == "cuda":
        return MemoryItem(name="overhead", bytes=CUDA_CONTEXT, note="CUDA context")
    kept = round(moment.activations + moment.logits)
    return MemoryItem(name="overhead", bytes=kept, note="freed memory that the heap keeps, at most")


def _frozen_bytes(facts: Facts, trained: frozenset[str], world: World, model: Model) -> float:
    """Bytes of the weights that don't train; trained ones are kept in float32."""
    dense = BYTES[world.dtype]
    total = 0.0
    for tensor in facts.tensors:
        if tensor.name in trained:
            continue
        per_weight = _quantized_bytes(tensor, model) if _is_quantized(tensor, model) else dense
        total += per_weight * tensor.size
    return total


def _is_quantized(tensor: Tensor, model: Model) -> bool:
    """Linear layers of the backbone are; embeddings, norms, convolutions and heads are not."""
    if model.quantization == "none" or len(tensor.shape) != 2 or not tensor.name.endswith(".weight"):
        return False
    return not tensor.name.startswith("head.") and activations.block_of(tensor.name) is not None


def _quantized_bytes(tensor: Tensor, model: Model) -> float:
    # int8 keeps one float32 scale per output
    return 1 + FULL / tensor.shape[1] if model.quantization == "int8" else FOUR_BITS


def _peak(
    facts: Facts,
    stage: Stage,
    batch: Batch,
    world: World,
    max_length: int,
    model: Model,
    trained: frozenset[str],
    trainable: int,
    hidden: float,
) -> _Moment:
    """The moment of the step at which most is alive."""
    width = BYTES[world.dtype]
    gradients = FULL * trainable
    kept, one_block = _kept(facts, stage, batch, world, max_length, trained)
    logits = _logits(facts, batch, max_length, model, hidden) if stage.head.kind == "native" else 0.0
    waiting = gradients if batch.accumulation > 1 else 0
    last = _output_gradient(facts, model, trained)
    moments = (
        _Moment("the loss", waiting, kept * width, LOGITS_ALIVE * logits),
        _Moment("the output layer", max(waiting, last), kept * width, 2 * logits),
        _Moment("a block", max(waiting, last), (kept + one_block) * width),
        _Moment("the update", gradients, scratch=_update_scratch(facts, trained, world, trainable)),
    )
    return max(moments, key=lambda moment: moment.total)


def _update_scratch(facts: Facts, trained: frozenset[str], world: World, trainable: int) -> float:
    """Bytes of AdamW's temporaries: on a GPU all parameters are updated at once, on a CPU one by one."""
    if world.device == "cuda":
        return float(FULL * trainable)
    return 2.0 * FULL * max((t.size for t in facts.tensors if t.name in trained), default=0)


def _kept(
    facts: Facts, stage: Stage, batch: Batch, world: World, max_length: int, trained: frozenset[str]
) -> tuple[float, float]:
    """Elements kept over all blocks, and those that one block's backward pass needs beside them."""
    a = facts.architecture
    if a.layers == 0:
        every = activations.convolutions(facts) * batch.micro
        return (every, 0.0) if any(not n.startswith("head.") for n in trained) else (0.0, every / 10)
    virtual = 0 if stage.adapter is None else _virtual_tokens(stage)
    length = (a.max_length if a.vocab_size == 0 else max_length) + virtual
    tokens = batch.micro * length
    adapted = () if stage.adapter is None else targets(stage.adapter, facts)
    first = activations.first_block(facts, trained, adapted, whole=virtual > 0)
    kind = activations.family(facts)
    trained_blocks = {activations.block_of(name) for name in trained}
    wrapped: dict[int | None, list[Module]] = {}
    for module in adapted:
        wrapped.setdefault(activations.block_of(module.tensor), []).append(module)
    by_block = [
        activations.per_block(
            a,
            kind,
            trained=index in trained_blocks,
            adapted=wrapped.get(index, ()),
            length=length,
            on_gpu=world.device == "cuda",
        )
        for index in range(first, a.layers)
    ]
    beside = activations.working(a, kind)
    last = LAST_NORM * a.hidden_size
    if not by_block:
        return float(last * tokens), beside * tokens
    if stage.gradient_checkpointing:
        return float((a.hidden_size * len(by_block) + last) * tokens), (max(by_block) + beside) * tokens
    return (sum(by_block) + last) * tokens, beside * tokens


def _virtual_tokens(stage: Stage) -> int:
    assert stage.adapter is not None
    value = stage.adapter.fields.get("num_virtual_tokens", 0)
    return value if isinstance(value, int) else 0


def _logits(facts: Facts, batch: Batch, max_length: int, model: Model, hidden: float) -> float:
    """Bytes of one float32 copy of the logits; of hidden places alone where the head answers only there."""
    if model.task not in LANGUAGE:
        return float(FULL * batch.micro * len(facts.labels))
    there = hidden if model.task == "masked-lm" and facts.architecture.model_type in PLACEWISE else 1.0
    return there * FULL * batch.micro * max_length * facts.architecture.vocab_size


def _output_gradient(facts: Facts, model: Model, trained: frozenset[str]) -> float:
    """Bytes of the output layer's gradient, which is there before any block's."""
    if model.task not in LANGUAGE:
        return 0.0
    own = [tensor for tensor in facts.tensors if tensor.name in OUTPUTS]
    layers = own or [tensor for tensor in facts.tensors if tensor.name in TIED]
    return float(FULL * sum(tensor.size for tensor in layers if tensor.name in trained))


def _weights_note(model: Model, world: World, trained: int) -> str:
    kind = f"{model.quantization}, rest {world.dtype}" if model.quantization != "none" else world.dtype
    return f"{kind}, trained in float32" if trained and kind != "float32" else kind


def _gradients_note(batch: Batch, moment: _Moment) -> str:
    return "kept over accumulation" if batch.accumulation > 1 else f"at the peak: {moment.name}"


def _copies(stage: Stage) -> int:
    """How often the weights that train are kept besides: averages and starts, each with what is aside."""
    return 2 * (stage.averaging is not None) + 2 * bool(stage.mixout)


def _copies_note(stage: Stage) -> str:
    kept = [name for name, there in (("average", stage.averaging), ("start", stage.mixout)) if there]
    return f"{' and '.join(kept)}, float32"


def _activations_note(stage: Stage, batch: Batch, max_length: int) -> str:
    how = "recomputed by block" if stage.gradient_checkpointing else "all kept"
    return f"{batch.micro} x {max_length:,} tokens, {how}"
