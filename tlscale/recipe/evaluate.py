"""What a recipe may say about scoring: metrics, control arms, and evaluation tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tlscale.recipe.base import Fraction, Frozen, Positive

Metric = Literal["accuracy", "f1_macro", "nll", "perplexity", "exact_match", "token_accuracy"]
LabelFree = Literal["infomax", "entropy", "snd"]
Selection = Literal["fixed", "first", "random", "balanced", "nearest", "diverse"]
Calibration = Literal["contextual", "pmi", "batch", "temperature"]
Control = Literal[
    "majority", "zero_shot", "tfidf", "class_mean", "features", "scratch", "target_only", "source_only"
]
TrainedControl = Literal["features", "scratch", "target_only", "source_only"]


class Evaluate(Frozen):
    """What is measured before and after."""

    target: tuple[Metric, ...] | None = Field(
        None, description="Metrics on data.test; by default those that the task has."
    )
    retention: tuple[Metric, ...] | None = Field(None, description="Metrics on data.retention.")
    split: Literal["test", "validation"] = Field(
        "test",
        description="Rows that the result is judged on; validation leaves the test rows untouched, for "
        "choosing settings.",
    )
    against: tuple[Control, ...] = Field(
        (), description="Control arms that the result must beat, besides the base."
    )
    against_runs: tuple[str, ...] = Field(
        (), description="Run directories of finished runs that the result must beat too."
    )
    arm_settings: dict[TrainedControl, dict[str, JsonValue]] = Field(
        default_factory=dict,
        description="Settings of trained control arms that differ from their own, by arm: "
        "`{scratch: {train.learning_rate: 4e-3}}`.",
    )
    trials: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="How many settings were tried before this run for each arm (tuned: the result); said "
        "with the verdict.",
    )
    max_rows: Positive | None = Field(None, description="Score at most so many rows of each set.")
    max_new_tokens: Positive = Field(64, description="Longest generation for exact_match.")
    label_template: str = Field(
        "{label}", description="Text that stands for a class in zero-shot classification."
    )
    tasks: tuple[str, ...] = Field(
        (),
        description="Evaluation tasks to run before and after: names of `tlscale tasks`, or YAML files.",
    )
    shots: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0,), min_length=1, description="Examples before each question of a task; one run for each number."
    )
    shot_selection: Selection | None = Field(
        None,
        description="How examples are chosen from a task's training rows: fixed (one draw for all), first, "
        "random (a draw for each item), balanced (over the answers), nearest (most similar) or diverse; by "
        "default as the task says, which is fixed unless it says otherwise.",
    )
    order_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Orders of the examples to try, one run of the task for each."
    )
    calibration: tuple[Calibration, ...] = Field(
        (), description="Calibrated scores of a task's choices, beside the plain ones."
    )
    chat: bool = Field(
        False, description="Put prompts and examples of tasks as turns of the model's chat template."
    )
    predictor: str | None = Field(
        None, description="Who answers tasks: a name of `tlscale plugins`; by default what fits the model."
    )
    predictor_options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Settings of the predictor, such as an endpoint's timeout."
    )
    adapter: str | None = Field(
        None, description="Folder of a PEFT adapter to score over the base, for `tlscale eval`."
    )
    data_dir: str | None = Field(
        None, description="Folder of the tasks' local files; what isn't there comes from the Hub."
    )
    cut_share: Fraction = Field(
        0.1, description="Largest share of a task's prompts that may lose their beginning to fit the model."
    )
    contamination: bool = Field(
        False, description="Look for the tasks' items in data.train, and score the clean ones apart."
    )


class Report(Frozen):
    """What counts as a difference, declared before it is seen."""

    margin: Annotated[float, Field(ge=0)] = Field(
        0.005, description="Largest target difference that doesn't matter, in the metric's own unit."
    )
    retention_margin: Annotated[float, Field(ge=0)] = Field(
        0.05, description="Largest loss of retention that doesn't matter, in the metric's own unit."
    )
    level: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.95, description="Confidence level of intervals.")
