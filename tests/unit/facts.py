"""Facts of small bases, by hand."""

from tlscale.planning.types import Architecture, Facts, Tensor

LABELS = ("no", "perhaps", "yes")


def llama(layers: int = 2, hidden: int = 16, *, labels: tuple[str, ...] = ()) -> Facts:
    """A llama-like base; with labels, one with a new classification head."""
    inner, vocabulary = hidden * 2, 64
    tensors = [Tensor(name="embed_tokens.weight", shape=(vocabulary, hidden), dtype="F32")]
    for layer in range(layers):
        for name, shape in (
            ("input_layernorm.weight", (hidden,)),
            ("self_attn.q_proj.weight", (hidden, hidden)),
            ("self_attn.k_proj.weight", (hidden // 2, hidden)),
            ("self_attn.v_proj.weight", (hidden // 2, hidden)),
            ("self_attn.o_proj.weight", (hidden, hidden)),
            ("post_attention_layernorm.weight", (hidden,)),
            ("mlp.gate_proj.weight", (inner, hidden)),
            ("mlp.up_proj.weight", (inner, hidden)),
            ("mlp.down_proj.weight", (hidden, inner)),
        ):
            tensors.append(Tensor(name=f"layers.{layer}.{name}", shape=shape, dtype="F32"))
    tensors.append(Tensor(name="norm.weight", shape=(hidden,), dtype="F32"))
    if labels:
        tensors.append(Tensor(name="head.score.weight", shape=(len(labels), hidden), dtype="F32"))
    else:
        tensors.append(Tensor(name="head.lm_head.weight", shape=(vocabulary, hidden), dtype="F32"))
    return Facts(
        model="tiny",
        commit=None,
        folder="/nowhere",
        architecture=Architecture(
            model_type="llama",
            hidden_size=hidden,
            intermediate_size=inner,
            layers=layers,
            heads=4,
            kv_heads=2,
            head_dim=hidden // 4,
            vocab_size=vocabulary,
            max_length=128,
        ),
        tensors=tuple(tensors),
        labels=labels,
        origin="safetensors",
        head_is_new=bool(labels),
    )
