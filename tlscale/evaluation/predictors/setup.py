"""What a predictor is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import nn

from tlscale.evaluation.scoring.progress import Progress, silent
from tlscale.planning.types import Facts, World
from tlscale.recipe.types import Model


@dataclass(frozen=True)
class Setup:
    """The model and its surroundings.

    Attributes:
        model: As the recipe names it.
        facts: Of the base.
        world: Device and precision.
        seed: Of whatever would start random.
        device: Where the model runs.
        module: The model, if it is loaded already, such as the tuned one of a run.
        processor: Its tokenizer or image processor, where one was loaded.
        size: Rows in a forward pass.
        max_length: Longest input in tokens.
        options: Of the predictor itself, such as an endpoint's timeout.
        secret: Gives the value of an environment variable that holds a key.
        say: Tells the user something.
        rank: Of this process among `processes`; `collect` gives each the rows of all.
        journal: Folder for answers as they come, to go on from after a kill.
        progress: Is told after every pass.
    """

    model: Model
    facts: Facts
    world: World
    seed: int
    device: torch.device
    module: nn.Module | None
    processor: Any
    size: int
    max_length: int
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    secret: Callable[[str], str | None] = lambda name: None
    say: Callable[[str], None] = lambda text: None
    rank: int = 0
    processes: int = 1
    collect: Callable[[list[Any]], list[Any]] = list
    journal: Path | None = None
    progress: Callable[[Progress], None] = silent
