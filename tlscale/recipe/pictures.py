"""What a recipe may say about how pictures become the model's input, and how they vary in training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tlscale.recipe.base import Fraction, Frozen, Positive

Side = Literal["height", "width", "shortest_edge"]
Spread = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
SIZES: tuple[set[str], ...] = ({"height", "width"}, {"shortest_edge"})


class ImageProcessor(Frozen):
    """Preprocessing in place of the base's own, under the names of preprocessor_config.json."""

    size: Positive | dict[Side, Positive] | None = Field(
        None,
        description="Pixels: a whole number is the side of the square that the model gets; "
        "or {height, width}, or {shortest_edge} before the crop.",
    )
    crop_size: Positive | dict[Side, Positive] | None = Field(
        None, description="Square or {height, width} that do_center_crop cuts out."
    )
    do_center_crop: bool | None = Field(None, description="Cut crop_size out of the middle.")
    do_rescale: bool | None = Field(None, description="Multiply pixels, 0 to 255, by rescale_factor.")
    rescale_factor: Spread | None = Field(None, description="1/255 brings pixels to 0 to 1.")
    do_normalize: bool | None = Field(None, description="Subtract image_mean, divide by image_std.")
    image_mean: tuple[float, float, float] | None = Field(
        None, description="Mean of red, green and blue, after rescaling."
    )
    image_std: tuple[Spread, Spread, Spread] | None = Field(
        None, description="Standard deviation of red, green and blue, after rescaling."
    )

    @model_validator(mode="after")
    def _says_something_that_fits(self) -> ImageProcessor:
        if not self.model_fields_set:
            raise ValueError(
                "says nothing; leave it out, and pictures are prepared as the base's files say"
            )
        for name in ("size", "crop_size"):
            given = getattr(self, name)
            allowed = SIZES if name == "size" else SIZES[:1]
            if isinstance(given, dict) and set(given) not in allowed:
                listed = " or ".join("{" + ", ".join(sorted(one)) + "}" for one in allowed)
                raise ValueError(f"{name} is a whole number, or {listed}")
        for switch, names in (
            ("do_normalize", ("image_mean", "image_std")),
            ("do_rescale", ("rescale_factor",)),
            ("do_center_crop", ("crop_size",)),
        ):
            for name in names:
                if getattr(self, switch) is False and getattr(self, name) is not None:
                    raise ValueError(f"{name} is of no use where {switch} is false; leave one of them out")
        return self


class Augmentation(Frozen):
    """Pictures to train on, drawn anew in every epoch; those that are scored stay as they are."""

    random_resized_crop: tuple[Share, Share] | None = Field(
        None, description="Least and largest share of the area that is cut out, and enlarged again."
    )
    horizontal_flip: Fraction = Field(0.0, description="Chance that left and right change places.")
    color_jitter: Fraction = Field(
        0.0, description="Most that brightness, contrast and saturation may change, each by a factor."
    )

    @model_validator(mode="after")
    def _does_something(self) -> Augmentation:
        crop = self.random_resized_crop
        if crop is not None and crop[0] > crop[1]:
            raise ValueError("random_resized_crop is [least, largest] share of the area")
        if crop is None and not self.horizontal_flip and not self.color_jitter:
            raise ValueError("changes nothing; leave it out, or set horizontal_flip: 0.5")
        return self
