"""The image processor of a base: as its own files say, with what a recipe says in their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from transformers.utils.hub import cached_file

from tlscale.planning.headers import read_json
from tlscale.planning.pictures import OWN, changes, timm
from tlscale.recipe.pictures import ImageProcessor


def image_processor(given: ImageProcessor | None, keywords: Mapping[str, Any], folder: Path) -> Any:
    """What makes pixel tensors; saved beside a result, it prepares pictures in the same way again.

    A base without a preprocessor_config.json gets what the recipe says over what timm wrote into its
    config.json: resized, rescaled and normalized.

    Args:
        given: What the recipe says, `None` for nothing.
        keywords: Of `from_pretrained`: where the base is.
        folder: Holds the base's config.json.

    Raises:
        OSError, ValueError: there is none, or it can't be read.
    """
    if given is None:
        return AutoImageProcessor.from_pretrained(**keywords, backend="pil")
    name, revision = keywords["pretrained_model_name_or_path"], keywords["revision"]
    file = cached_file(name, OWN, revision=revision, _raise_exceptions_for_missing_entries=False)
    if file is None:
        config = folder / "config.json"
        base = timm(read_json(config)) if config.is_file() else {}
        return ViTImageProcessorPil(**{**base, **changes(given, base)})
    said = changes(given, read_json(Path(file)))
    return AutoImageProcessor.from_pretrained(**keywords, backend="pil", **said)
