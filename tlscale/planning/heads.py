"""The parameters of each architecture's own classification head, as transformers names them."""

from __future__ import annotations

from collections.abc import Mapping

from tlscale.planning.headers import Stored

# name below `head.`, and its shape in C classes and H features
Shapes = tuple[tuple[str, str], ...]

_LINEAR: Shapes = (("classifier.weight", "CH"), ("classifier.bias", "C"))
_SCORE: Shapes = (("score.weight", "CH"),)
_DENSE: Shapes = (
    ("classifier.dense.weight", "HH"),
    ("classifier.dense.bias", "H"),
    ("classifier.out_proj.weight", "CH"),
    ("classifier.out_proj.bias", "C"),
)
_HEADS: dict[str, Shapes] = {
    **dict.fromkeys(
        "camembert electra longformer mpnet roberta xlm-roberta xlm-roberta-xl".split(), _DENSE
    ),
    **dict.fromkeys(
        (
            "bloom falcon gemma gemma2 gemma3_text glm gpt2 gpt_bigcode gpt_neo gpt_neox gptj llama "
            "ministral mistral mixtral mpt nemotron opt phi phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe "
            "smollm3 stablelm starcoder2"
        ).split(),
        _SCORE,
    ),
    "deberta-v2": (("pooler.dense.weight", "HH"), ("pooler.dense.bias", "H"), *_LINEAR),
    "dinov2": (("classifier.weight", "CHH"), ("classifier.bias", "C")),
    "dinov2_with_registers": (("classifier.weight", "CHH"), ("classifier.bias", "C")),
    "distilbert": (("pre_classifier.weight", "HH"), ("pre_classifier.bias", "H"), *_LINEAR),
    "modernbert": (("head.dense.weight", "HH"), ("head.norm.weight", "H"), *_LINEAR),
    "resnet": (("classifier.1.weight", "CH"), ("classifier.1.bias", "C")),
}
# backbones that a classifier of the family builds with a pooling layer, even if the checkpoint has none
POOLER = frozenset("albert bert".split())
# backbones whose pooling layer the classifier leaves out
NO_POOLER = frozenset(
    "camembert deit electra longformer mpnet roberta vit xlm-roberta xlm-roberta-xl".split()
)
POOLER_NAMES = ("pooler.dense.weight", "pooler.dense.bias")


def classifier(model_type: str, classes: int, features: int) -> dict[str, tuple[int, ...]]:
    """Names (with `head.` in front) and shapes of the head of `classes` outputs over `features` inputs."""
    table = _HEADS.get(model_type, _LINEAR)
    # "CHH" is a matrix over two concatenated feature vectors
    sides = {
        "C": (classes,),
        "H": (features,),
        "CH": (classes, features),
        "HH": (features, features),
        "CHH": (classes, 2 * features),
    }
    return {f"head.{name}": sides[shape] for name, shape in table}


def fitted(
    stored: Mapping[str, Stored], wanted: Mapping[str, tuple[int, ...]], dtype: str
) -> tuple[dict[str, Stored], bool]:
    """The head as the task needs it, and whether any of it is not the checkpoint's."""
    made: dict[str, Stored] = {}
    is_new = False
    for name, shape in wanted.items():
        kept = stored.get(name)
        if kept is not None and kept.shape == shape:
            made[name] = kept
        else:
            made[name], is_new = Stored(dtype, shape), True
    return made, is_new
