"""Words for classes in a mask's place: the loss over the words alone, and beside it of hidden tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from tlscale.data.examples import Example
from tlscale.data.masking import verbalizer
from tlscale.engine.objectives import Objective, Setting, rows_in, task_count, task_loss
from tlscale.engine.view import View
from tlscale.errors import PlanError
from tlscale.models.likelihood import choices

UNLABELLED = "unlabelled"


def make_pet(options: Mapping[str, Any], setting: Setting) -> Objective:
    """Cross-entropy over the words of the training rows (Schick and Schuetze 2021, arXiv:2001.07676).

    It stands in place of the task's own loss, which is over the whole vocabulary.

    Raises:
        PlanError: the rows are no patterns with a mask, or have one word only.
    """
    words = verbalizers(setting.examples)
    smoothing = float(options.get("label_smoothing", 0.0))

    def total(view: View) -> Tensor:
        scores, right = choices(view.output().logits, view.labels(), words)
        return functional.cross_entropy(scores, right, reduction="sum", label_smoothing=smoothing)

    return Objective(total, rows_in)


def make_pet_mlm(options: Mapping[str, Any], setting: Setting) -> Objective:
    """The loss of hidden tokens of unlabelled texts, which PET adds with a small weight (section 3.3)."""
    return Objective(
        lambda view: task_loss(view, UNLABELLED, 0.0),
        lambda batches: task_count(batches, UNLABELLED),
        (UNLABELLED,),
    )


def verbalizers(examples: Sequence[Example]) -> tuple[int, ...]:
    """The tokens that fill the rows' masks, sorted.

    Raises:
        PlanError: a row has no pattern, or all have the same word.
    """
    found = {verbalizer(example) for example in examples}
    if None in found:
        raise PlanError(
            "train.objective.pet: needs rows with a pattern and a word; give data.train.prompt with {mask} "
            "in it, and data.train.completion"
        )
    words = sorted(word for word in found if word is not None)
    if len(words) < 2:
        raise PlanError(
            f"train.objective.pet: {len(words)} different words in the training rows; at least 2 are "
            "needed to tell classes apart"
        )
    return tuple(words)
