"""What a recipe may say about searching its own settings: which, between what bounds, how many tries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from tlscale.recipe.base import Frozen, Positive
from tlscale.recipe.evaluate import LabelFree, Metric
from tlscale.recipe.parse import parse_yaml


class Space(Frozen):
    """The values one setting may take: choices, or a range with both ends in it."""

    choices: tuple[JsonValue, ...] = Field(
        (), description="The values to choose from, in place of a range."
    )
    low: int | float | None = Field(
        None, description="Lowest value; two whole numbers make a range of whole numbers."
    )
    high: int | float | None = Field(None, description="Highest value.")
    log: bool = Field(False, description="Search evenly over orders of magnitude.")

    @model_validator(mode="after")
    def _range_or_choices(self) -> Space:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give choices, or low and high; not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give choices, or both low and high")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, and {self.low} is not below {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("log needs low above 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[JsonValue, ...]:
        """Values that a recipe must be able to take: every choice, or both ends of the range."""
        return self.choices or (self.low, self.high)


class Sweep(Frozen):
    """A search over the recipe's own settings, judged on its validation rows."""

    parameters: dict[str, Space] = Field(
        default_factory=dict,
        description="Settings by their path in the recipe: `{train.learning_rate: {low: 1e-4, high: 1e-2, "
        "log: true}}`.",
    )
    trials: Positive = Field(20, description="Settings to try; the recipe's own are the first.")
    metric: Metric | LabelFree | None = Field(
        None,
        description="What is made best, on the validation rows; by default the first target metric. "
        "infomax, entropy and snd are of a classifier on data.unlabelled, and look at no label.",
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe",
        description="How settings are drawn: tpe learns from earlier trials, random doesn't, grid goes "
        "through all choices.",
    )
    prune: bool = Field(
        True, description="Stop a trial whose validation loss is worse than the median of earlier ones."
    )
    arms: bool = Field(
        True, description="Give the trained arms of evaluate.against as many trials of their own."
    )
    seconds: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Begin no further trial after so many seconds."
    )

    @model_validator(mode="after")
    def _grid_has_choices(self) -> Sweep:
        ranges = [name for name, space in self.parameters.items() if not space.choices]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"sampler: grid needs choices, and {', '.join(ranges)} has a range")
        return self


def written_space(text: str) -> dict[str, JsonValue]:
    """A space as the command line writes it: `1..8`, `log:1e-4..1e-2`, or choices `4,8,16`.

    Raises:
        ValueError: it is none of these.
    """
    body = text.removeprefix("log:")
    low, dots, high = body.partition("..")
    if not dots:
        found = parse_yaml(f"[{body}]") if body.strip() and body == text else None
        if not isinstance(found, list):
            raise ValueError("write low..high, log:low..high, or choices with commas between them")
        return {"choices": found}
    ends = [parse_yaml(end) for end in (low, high)]
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends):
        raise ValueError("the ends of a range are numbers")
    return {"low": ends[0], "high": ends[1], **({"log": True} if body != text else {})}
