"""The parameters of each architecture's own heads, for classes and for hidden tokens.

Named as transformers names them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tlscale.planning.headers import Stored

# name below `head.`, and its shape in C classes, H features, V tokens and E features of an embedding
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
    "audio-spectrogram-transformer": (
        ("classifier.layernorm.weight", "H"),
        ("classifier.layernorm.bias", "H"),
        ("classifier.dense.weight", "CH"),
        ("classifier.dense.bias", "C"),
    ),
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
    "bit": (("classifier.1.weight", "CH"), ("classifier.1.bias", "C")),
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

_BERT: Shapes = (
    ("cls.predictions.bias", "V"),
    ("cls.predictions.transform.dense.weight", "EH"),
    ("cls.predictions.transform.dense.bias", "E"),
    ("cls.predictions.transform.LayerNorm.weight", "E"),
    ("cls.predictions.transform.LayerNorm.bias", "E"),
)
_ROBERTA: Shapes = (
    ("lm_head.bias", "V"),
    ("lm_head.dense.weight", "EH"),
    ("lm_head.dense.bias", "E"),
    ("lm_head.layer_norm.weight", "E"),
    ("lm_head.layer_norm.bias", "E"),
)
# heads over hidden tokens: shared with the input embedding, and what comes to them where they are not
_MASKED: dict[str, tuple[Shapes, Shapes]] = {
    **dict.fromkeys(
        "bert deberta deberta-v2".split(),
        (_BERT, (("cls.predictions.decoder.weight", "VE"), ("cls.predictions.decoder.bias", "V"))),
    ),
    **dict.fromkeys(
        "longformer mpnet roberta xlm-roberta-xl".split(),
        (_ROBERTA, (("lm_head.decoder.weight", "VE"), ("lm_head.decoder.bias", "V"))),
    ),
    "albert": (
        (
            ("predictions.bias", "V"),
            ("predictions.dense.weight", "EH"),
            ("predictions.dense.bias", "E"),
            ("predictions.LayerNorm.weight", "E"),
            ("predictions.LayerNorm.bias", "E"),
        ),
        (("predictions.decoder.weight", "VE"), ("predictions.decoder.bias", "V")),
    ),
    "distilbert": (
        (
            ("vocab_transform.weight", "EH"),
            ("vocab_transform.bias", "E"),
            ("vocab_layer_norm.weight", "E"),
            ("vocab_layer_norm.bias", "E"),
            ("vocab_projector.bias", "V"),
        ),
        (("vocab_projector.weight", "VE"),),
    ),
    "electra": (
        (
            ("generator_predictions.LayerNorm.weight", "E"),
            ("generator_predictions.LayerNorm.bias", "E"),
            ("generator_predictions.dense.weight", "EH"),
            ("generator_predictions.dense.bias", "E"),
            ("generator_lm_head.bias", "V"),
        ),
        (("generator_lm_head.weight", "VE"),),
    ),
    "modernbert": (
        (("head.dense.weight", "EH"), ("head.norm.weight", "E"), ("decoder.bias", "V")),
        (("decoder.weight", "VE"),),
    ),
}
DECODERS = tuple(
    dict.fromkeys(f"head.{name}" for _, apart in _MASKED.values() for name, shape in apart if shape == "VE")
)
EMBEDDINGS = ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight")


def masked(
    model_type: str, embedding: tuple[int, ...], features: int, *, tied: bool
) -> dict[str, tuple[int, ...]] | None:
    """As `classifier`, of the head that finds hidden tokens; `None` for a model type that has none here.

    `embedding` is the shape of the input embedding, whose weight the head uses too if it is `tied`.
    """
    if model_type not in _MASKED:
        return None
    tokens, width = embedding
    shared, apart = _MASKED[model_type]
    sides = {"V": (tokens,), "E": (width,), "EH": (width, features), "VE": (tokens, width)}
    return {f"head.{name}": sides[shape] for name, shape in (*shared, *(() if tied else apart))}


def masked_types() -> tuple[str, ...]:
    """Model types whose head over hidden tokens is known."""
    return tuple(sorted(_MASKED))


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
