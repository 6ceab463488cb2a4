"""What is optimized besides the task's own loss: a closed list of terms, each with a weight."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tlscale.recipe.base import Frozen

Weight = Annotated[float, Field(ge=0)]
WEIGHT = "Weight in the sum; 0 leaves the term out."


class L2Sp(Frozen):
    """Half the squared distance of the weights from where the stage began (Li et al. 2018)."""

    weight: Weight = Field(0.01, description=WEIGHT)


class Ewc(Frozen):
    """The same with each weight counted by its diagonal Fisher information (Kirkpatrick et al. 2017)."""

    weight: Weight = Field(1.0, description=WEIGHT)
    rows: Annotated[int, Field(gt=0)] = Field(
        256, description="Rows of data.replay that the Fisher information is estimated on."
    )


class KlToBase(Frozen):
    """Divergence of the model's answers from those of the base (Li and Hoiem 2016, arXiv:1606.09282)."""

    weight: Weight = Field(1.0, description=WEIGHT)
    on: Literal["train", "replay"] = Field(
        "train", description="Whose rows: the training rows, or data.replay."
    )
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="Softens both distributions.")


class RDrop(Frozen):
    """Divergence between two passes with different dropout (Liang et al. 2021, arXiv:2106.14448)."""

    weight: Weight = Field(1.0, description=WEIGHT)


class OLora(Frozen):
    """Overlap of the LoRA's A with those of earlier adapters (Wang et al. 2023, arXiv:2310.14152)."""

    weight: Weight = Field(0.5, description=WEIGHT)
    adapters: tuple[str, ...] = Field(
        (),
        description="Folders of earlier adapters, besides those that earlier stages merged into the base.",
    )


class Replay(Frozen):
    """The task's loss on rows of data.replay, as many a step as training rows."""

    weight: Weight = Field(1.0, description=WEIGHT)


class Choices(Frozen):
    """The right answer of a closed set against the others (T-Few, Liu et al. 2022, arXiv:2205.05638)."""

    weight: Weight = Field(1.0, description=WEIGHT)
    length_normalised: Weight = Field(
        1.0, description="Share of the cross-entropy over the answers' mean log-likelihoods."
    )
    unlikelihood: Weight = Field(1.0, description="Share of the unlikelihood of the wrong answers' tokens.")
    most: Annotated[int, Field(ge=2)] = Field(
        16, description="Most different completions that are taken for a closed set."
    )


class Pet(Frozen):
    """The right word for a row's class in the mask's place against the others (Schick and Schuetze 2021).

    In place of the loss over the whole vocabulary; data.train has a pattern and words.
    """

    mlm: Annotated[float, Field(ge=0, lt=1)] = Field(
        1e-4, description="Weight of hidden tokens of data.unlabelled; the words have the rest."
    )


class Alignment(Frozen):
    """Distance between the features of training rows and of data.unlabelled."""

    weight: Weight = Field(1.0, description=WEIGHT)


class Adversarial(Frozen):
    """How well a discriminator tells training rows from data.unlabelled, with its gradient reversed."""

    weight: Weight = Field(1.0, description=WEIGHT)
    hidden: Annotated[int, Field(gt=0)] = Field(128, description="Hidden units of the discriminator.")
    lr_scale: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Factor on the stage's learning rate, for the discriminator."
    )


class Mcc(Frozen):
    """Class confusion on data.unlabelled (Jin et al. 2020, arXiv:1912.03699)."""

    weight: Weight = Field(1.0, description=WEIGHT)
    temperature: Annotated[float, Field(gt=0)] = Field(2.5, description="Softens the predictions.")


class Objective(Frozen):
    """Terms that are added to the task's loss; those that are not given are left out."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of each target spread evenly over all classes or tokens."
    )
    l2_sp: L2Sp | None = Field(None, description="Keeps weights near where they began.")
    ewc: Ewc | None = Field(None, description="Keeps the weights near that data.replay needs most.")
    kl_to_base: KlToBase | None = Field(None, description="Keeps answers near those of the base.")
    o_lora: OLora | None = Field(
        None, description="Keeps a LoRA orthogonal to earlier ones that are in the base."
    )
    rdrop: RDrop | None = Field(None, description="Makes answers agree under dropout.")
    replay: Replay | None = Field(None, description="Goes on learning data.replay.")
    choices: Choices | None = Field(
        None, description="Tells the right completion from all the others of the training rows."
    )
    pet: Pet | None = Field(
        None, description="Learns the word in a pattern's mask among the words of all rows, and no other."
    )
    coral: Alignment | None = Field(
        None, description="Aligns covariances with data.unlabelled (Sun and Saenko 2016)."
    )
    mmd: Alignment | None = Field(
        None, description="Aligns distributions with data.unlabelled by kernels (Long et al. 2015)."
    )
    dann: Adversarial | None = Field(
        None, description="Aligns features against a discriminator (Ganin et al. 2016)."
    )
    cdan: Adversarial | None = Field(
        None, description="The same, given the predicted classes (Long et al. 2018)."
    )
    mcc: Mcc | None = Field(None, description="Makes predictions on data.unlabelled unconfused.")
