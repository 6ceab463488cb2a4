"""What a recipe says of training, in the words of transformers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tlscale.recipe.base import Fraction, Frozen, Positive
from tlscale.recipe.multi_task import MultiTask
from tlscale.recipe.objective import Objective


class Averaging(Frozen):
    """The average of the weights over the steps of a stage, kept in place of the last ones."""

    kind: Literal["ema", "swa"] = Field(
        description="ema: recent steps count most (exponential moving average); swa: the steps of the end "
        "count alike (stochastic weight averaging, Izmailov et al. 2018)."
    )
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999,
        description="With ema, what earlier steps keep of their share in each; less over the first ones.",
    )
    start: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.75, description="With swa, the share of the steps after which averaging begins."
    )
    every: Positive = Field(1, description="Steps from one set of weights that is averaged to the next.")


class Curriculum(Frozen):
    """Easy rows first: which of them may come when, in the first epochs."""

    by: Literal["length", "loss", "column"] = Field(
        description="What makes a row hard: its length, its loss as the stage begins, or a column's number."
    )
    column: str | None = Field(None, description="With by: column, its name; larger is harder.")
    pacing: Literal["linear", "root"] = Field(
        "root", description="How the share of rows that may come grows; root: fast at first."
    )
    start: Annotated[float, Field(gt=0, le=1)] = Field(
        0.2, description="The share of rows, easiest first, that an epoch begins with; 1: no curriculum."
    )
    until: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="The share of an epoch after which all rows may come."
    )
    epochs: Positive = Field(1, description="How many epochs, from the first, go from easy to hard.")
    hardest_first: bool = Field(False, description="The other way round, to compare with.")

    @model_validator(mode="after")
    def _column_or_none(self) -> Curriculum:
        if (self.by == "column") != (self.column is not None):
            raise ValueError("give column with by: column, and only then")
        return self


class Importance(Frozen):
    """Training rows that count more the more they are like data.unlabelled."""

    kind: Literal["label_shift", "covariate"] = Field(
        description="label_shift: by class, where only the classes' shares differ (Lipton et al. 2018); "
        "covariate: by features, where only the inputs differ (Shimodaira 2000)."
    )
    strength: Fraction = Field(
        1.0,
        description="Power that weights are raised to: 0 leaves rows as they are, less than 1 flattens.",
    )
    max_weight: Annotated[float, Field(ge=1)] = Field(
        10.0, description="Most that a row may count, in rows of average weight."
    )
    soft: bool = Field(
        False, description="With label_shift, a classifier's probabilities in place of its answers."
    )


class Train(Frozen):
    """Optimization, in the words of transformers' TrainingArguments."""

    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-4, description="Peak learning rate.")
    optim: Literal["adamw", "sgd"] = Field(
        "adamw",
        description="sgd: with a momentum of 0.9, and weight decay as the gradient of a squared norm.",
    )
    num_train_epochs: Annotated[float, Field(gt=0)] = Field(
        3.0, description="Passes over the training rows."
    )
    max_steps: Positive | None = Field(None, description="Optimizer steps; overrides epochs.")
    train_batch_size: Positive | None = Field(
        None, description="Rows per optimizer step over all devices; 32 unless told."
    )
    per_device_train_batch_size: Positive | Literal["auto"] = Field(
        "auto", description="Rows per device and forward pass; auto: as many as fit."
    )
    gradient_accumulation_steps: Positive | Literal["auto"] = Field(
        "auto", description="Forward passes per optimizer step; auto: what train_batch_size needs."
    )
    per_device_eval_batch_size: Positive = Field(32, description="Rows per forward pass in evaluation.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "slanted_triangular"] = Field(
        "cosine", description="Shape of the learning rate after warm-up."
    )
    warmup_ratio: Fraction = Field(0.03, description="Share of the steps spent warming up.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight decay, decoupled in AdamW; never on biases and norms."
    )
    adam_beta1: Fraction = Field(0.9, description="AdamW's first moment decay.")
    adam_beta2: Fraction = Field(0.999, description="AdamW's second moment decay.")
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Gradient norm limit; 0 switches clipping off."
    )
    group_by_length: bool = Field(
        False, description="Batches of rows of like length: less padding, and less random batches."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, more time."
    )
    eval_steps: Positive | None = Field(
        None, description="Steps between evaluations on the validation rows."
    )
    save_steps: Positive | None = Field(None, description="Steps between checkpoints.")
    keep_checkpoints: Positive = Field(
        2,
        description="How many of the newest checkpoints are kept, besides the best weights.",
    )
    async_save: bool = Field(
        False, description="Write checkpoints in the background, from a copy in the machine's memory."
    )
    dataloader_num_workers: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Processes that turn rows into tokens: of a stream while training goes on, of other "
        "texts before it; 0: the training process itself.",
    )
    on_save_failure: Literal["stop", "continue"] = Field(
        "stop", description="What a checkpoint that can't be written means; the ones before it stay whole."
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="What a loss or gradient that is no finite number means; kept for replay."
    )
    max_skipped_steps: Positive = Field(
        10, description="With on_nonfinite: skip, the most steps that may be skipped in a stage."
    )
    hang_timeout: Annotated[float, Field(ge=0)] = Field(
        60.0, description="Seconds without a sign of life after which a run is ended; 0 waits for ever."
    )
    logging_steps: Positive = Field(10, description="Steps between logged losses.")
    early_stopping_patience: Positive | None = Field(
        None, description="Stop after so many evaluations without a better validation loss."
    )
    objective: Objective = Field(
        default_factory=lambda: Objective(), description="What is optimized besides the task's own loss."
    )
    multi_task: MultiTask = Field(
        default_factory=lambda: MultiTask(), description="How the tasks of data.train.tasks are combined."
    )
    mixout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="Share of each step's weights that are those the stage began with (Lee et al. 2020).",
    )
    averaging: Averaging | None = Field(
        None, description="Keeps an average of the weights over the steps, in place of the last."
    )
    curriculum: Curriculum | None = Field(None, description="Brings easy rows first.")
    importance: Importance | None = Field(
        None, description="Weights training rows for the domain of data.unlabelled."
    )
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = Field(
        (), description="Experiment trackers that get the logged values."
    )

    @model_validator(mode="after")
    def _patience_needs_evaluations(self) -> Train:
        if self.early_stopping_patience is not None and self.eval_steps is None:
            raise ValueError("early_stopping_patience needs eval_steps")
        return self
