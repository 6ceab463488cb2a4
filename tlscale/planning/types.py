"""The closed vocabulary that strategies compile to and one engine interprets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from tlscale.planning.item import MemoryItem
from tlscale.recipe.base import Frozen
from tlscale.recipe.carry import Carry
from tlscale.recipe.hardware import Offload
from tlscale.recipe.train import Averaging, Curriculum, Importance
from tlscale.recipe.types import Recipe, Source

Sharding = Literal["none", "fsdp2", "zero1", "zero2", "zero3"]
Backend = Literal["single", "ddp", "fsdp2", "zero1", "zero2", "zero3"]
SHARED_ADAPTER = "shared"


class Tensor(Frozen):
    """One parameter of the base as its files describe it.

    `name` is canonical: the backbone's own name without the architecture's prefix (`model.`, `bert.`),
    or `head.` and the name of a parameter that belongs to the task's head.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for side in self.shape:
            count *= side
        return count


class Architecture(Frozen):
    """The dimensions that memory and time depend on; 0 where the architecture has no such thing."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_length: int


class Facts(Frozen):
    """What is known of the base without its weights and without torch.

    `left_out`: parameters of the checkpoint's own head that the task has no use for.
    """

    model: str
    commit: str | None
    folder: str
    architecture: Architecture
    tensors: tuple[Tensor, ...]
    labels: tuple[str, ...]
    origin: Literal["safetensors", "config"]
    head_is_new: bool
    left_out: tuple[str, ...] = ()


class ParamRule(Frozen):
    """Decides every parameter whose canonical name `pattern` (a regular expression) matches in full.

    `lr_scale` multiplies the stage's learning rate; `None` freezes. Before the optimizer step `from_step`
    the parameter rests: it belongs to the optimizer from the start, at rate 0 and without a gradient.
    """

    pattern: str
    lr_scale: float | None
    from_step: int = 0


class Decision(Frozen):
    """What the rules made of one parameter: the index of the first that matched, and its scale."""

    name: str
    size: int
    rule: int
    lr_scale: float | None


class Adapter(Frozen):
    """A PEFT method with its own field names, as `peft.get_peft_config` takes them."""

    peft_type: str
    fields: dict[str, JsonValue]


class Head(Frozen):
    """The part that turns representations into the task's answers.

    `native`: the transformers class's own head. `pooled`: a linear layer (or one hidden layer of
    `hidden` units) over one pooled, optionally normalized vector per row; the backbone's features are
    computed once when nothing before the head is trained. `start` is where a new pooled head's last layer
    begins: over features that don't move, what is random in it is noise that few rows don't unlearn.
    """

    kind: Literal["native", "pooled"]
    hidden: int = 0
    normalize: bool = True
    start: Literal["random", "zeros"] = "random"


class Term(Frozen):
    """One objective of the weighted sum; `name` is a plugin or `"module:function"`, with its options."""

    name: str = "task"
    weight: float = 1.0
    options: dict[str, JsonValue] = Field(default_factory=dict)


class Update(Frozen):
    """The optimizer and gradient clipping; `betas` are AdamW's."""

    optim: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    max_grad_norm: float


class Schedule(Frozen):
    """The learning rate over the stage's steps."""

    kind: Literal["linear", "cosine", "constant", "slanted_triangular"]
    warmup_ratio: float


class Budget(Frozen):
    """How long a stage trains; `max_steps` wins over `epochs`."""

    epochs: float
    max_steps: int | None
    eval_steps: int | None
    save_steps: int | None
    logging_steps: int
    early_stopping_patience: int | None


class Safety(Frozen):
    """What is kept of a run while it goes on, and what becomes of it when something goes wrong."""

    keep_checkpoints: int = 2
    async_save: bool = False
    hang_timeout: float = 60.0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped_steps: int = 10
    on_save_failure: Literal["stop", "continue"] = "stop"


class AskedBatch(Frozen):
    """What the recipe says of a stage's batch, in the words of transformers' TrainingArguments."""

    train_batch_size: int | None = None
    per_device_train_batch_size: int | Literal["auto"] = "auto"
    gradient_accumulation_steps: int | Literal["auto"] = "auto"


class Batch(Frozen):
    """Rows per forward pass and device x passes per step x devices."""

    micro: int
    accumulation: int
    world: int

    @property
    def total(self) -> int:
        return self.micro * self.accumulation * self.world


class Tasks(Frozen):
    """Several tasks at once: their classes, how rows are drawn, what is optimized, whose adapters."""

    sizes: tuple[tuple[str, int], ...]
    temperature: float
    balance: Literal["rows", "tasks", "uncertainty", "pcgrad"]
    uncertainty_rate: float
    adapters: Literal["shared", "per_task", "both"] = "shared"

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """PEFT's names of the adapters where tasks have their own; none where they share one."""
        if self.adapters == "shared":
            return ()
        own = tuple(f"task_{name}" for name, _ in self.sizes)
        return (SHARED_ADAPTER, *own) if self.adapters == "both" else own


class Stage(Frozen):
    """One training stage, fully decided; `carry` is what becomes of the adapter that it starts from."""

    name: str
    starts_from: str
    source: Source | None
    rules: tuple[ParamRule, ...]
    adapter: Adapter | None
    head: Head
    objective: tuple[Term, ...]
    update: Update
    schedule: Schedule
    budget: Budget
    group_by_length: bool
    gradient_checkpointing: bool
    safety: Safety = Safety()
    tasks: Tasks | None = None
    carry: Carry = "none"
    batch: AskedBatch = AskedBatch()
    averaging: Averaging | None = None
    mixout: float = 0.0
    curriculum: Curriculum | None = None
    importance: Importance | None = None


class PlannedStage(Frozen):
    """A stage with what the plan worked out for it."""

    stage: Stage
    decisions: tuple[Decision, ...]
    batch: Batch
    trainable: int
    total: int
    exact: bool
    steps: int | None
    memory: tuple[MemoryItem, ...]


class World(Frozen):
    """The processes the plan is for."""

    device: Literal["cpu", "cuda"]
    processes: int
    dtype: Literal["float32", "bfloat16", "float16"]
    memory_per_device: int | None
    machines: int = 1
    sharding: Sharding = "none"
    offload: Offload = "none"

    @property
    def backend(self) -> Backend:
        """How the processes train together."""
        if self.sharding != "none":
            return self.sharding
        return "single" if self.processes == 1 else "ddp"

    @property
    def shards_weights(self) -> bool:
        """Whether no process holds the whole model, so that a forward pass needs all of them."""
        return self.sharding in ("fsdp2", "zero3")


class DataFacts(Frozen):
    """What a quick look at one local source told; `None` where it could not be known cheaply."""

    role: str
    where: str
    rows: int | None
    format: str | None


class Plan(Frozen):
    """Everything a run will do. Written once to plan.json; nothing changes it afterwards."""

    version: Literal[1] = 1
    fingerprint: str
    recipe: Recipe
    seed: int
    facts: Facts
    data: tuple[DataFacts, ...]
    world: World
    stages: tuple[PlannedStage, ...]
    max_length: int
    notes: tuple[str, ...]
    versions: dict[str, str]

    def __repr__(self) -> str:
        from tlscale.planning.render import headline

        return f"<Plan {self.fingerprint} of {self.recipe.name}: {headline(self)}>"

    def __str__(self) -> str:
        from tlscale.planning.render import table

        return table(self)

    def _repr_html_(self) -> str:
        from tlscale.planning.html import plan_page

        return plan_page(self)
