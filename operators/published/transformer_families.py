"""Adapters of the families with blocks of a mixer and SwiGLU: Llama, Qwen2, Qwen3 and OLMo Hybrid."""

from collections.abc import Mapping, Sequence
from typing import Any

from operators.architecture import MAX_DEPTH
from operators.published.rotation import rope
from operators.published.settings import Settings
from operators.published.tensor_names import (
    ATTENTION,
    GATED_DELTANET,
    QK_NORM,
    QKV_BIAS,
    SWIGLU,
    Family,
    layer_names,
    outside_names,
)

SILU = ("silu", "swish")  # two names of one function


def llama(config: Settings) -> Family:
    """Llama and models of its shape. Raises ArchitectureError."""
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if width % heads:
        raise config.error("hidden_size", f"a multiple of num_attention_heads, {heads}", width)
    for kind in config.names("layer_types") or ():
        if kind != "full_attention":
            raise config.error("layer_types", "full_attention", kind)
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    return _transformer(config)


def qwen2(config: Settings) -> Family:
    """Qwen2 and Qwen2.5: queries, keys and values have biases. Raises ArchitectureError."""
    return _transformer(config, shape={"qkv_bias": True}, inside=QKV_BIAS, windows=_windows(config))


def qwen3(config: Settings) -> Family:
    """Qwen3: queries and keys are normalized by head. Raises ArchitectureError."""
    config.only("attention_bias", False)
    return _transformer(
        config, shape={"qk_norm": "head"}, inside=QK_NORM, windows=_windows(config), head_dim=128
    )


def _transformer(
    config: Settings,
    *,
    shape: Mapping[str, Any] | None = None,
    inside: tuple[str, ...] = (),
    windows: Sequence[int | None] | None = None,
    head_dim: int | None = None,
) -> Family:
    """A family with blocks of attention and SwiGLU.

    shape: further numbers of its attention's shape.
    inside: further parameters of its attention.
    windows: the window of each block.
    head_dim: the family's default; None for the width divided by the heads.
    """
    config.only("hidden_act", *SILU)
    feedforward = {"operator": "swiglu", "shape": {"hidden": config.size("intermediate_size")}}
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    for block in range(config.size("num_hidden_layers", most=MAX_DEPTH)):
        window = windows[block] if windows else None
        layers += [attention_layer(config, head_dim=head_dim, window=window, **shape or {}), feedforward]
        layer = f"model.layers.{block}"
        names |= layer_names(
            2 * block, f"{layer}.self_attn", ATTENTION + inside, f"{layer}.input_layernorm.weight"
        )
        names |= layer_names(
            2 * block + 1, f"{layer}.mlp", SWIGLU, f"{layer}.post_attention_layernorm.weight"
        )
    return {"rope": rope(config), "norm_eps": config.real("rms_norm_eps", default=1e-6)}, layers, names, ()


def attention_layer(
    config: Settings, *, head_dim: int | None = None, called: Sequence[str] = ("head_dim",), **shape: Any
) -> dict[str, Any]:
    """A layer of attention.

    head_dim: the family's default; None for the width divided by the heads.
    called: the family's keys for it.
    """
    heads = config.size("num_attention_heads")
    size = config.size(
        *called,
        default=head_dim or config.size("hidden_size") // heads,
        null=head_dim is None,
    )
    kv_heads = config.size("num_key_value_heads", default=heads, null=True)
    return {
        "operator": "attention",
        "shape": {"heads": heads, "kv_heads": kv_heads, "head_dim": size, **shape},
    }


def _windows(config: Settings) -> list[int | None]:
    """The window of every block of Qwen2 or Qwen3: by `layer_types` or from block `max_window_layers` on."""
    blocks, slides = config.size("num_hidden_layers", most=MAX_DEPTH), config.flag("use_sliding_window")
    config.without_effect(("sliding_window", "max_window_layers"))  # true where no window is used
    window = config.size("sliding_window", default=4096, null=True) if slides else None
    if slides and "sliding_window" in config.values and config.values["sliding_window"] is None:
        window = None
    kinds = config.names("layer_types")
    if kinds is None:
        full = blocks if window is None else config.size("max_window_layers", default=28, least=0)
        kinds = ["full_attention" if block < full else "sliding_attention" for block in range(blocks)]
    if len(kinds) != blocks:
        raise config.error("layer_types", f"{blocks} entries, as num_hidden_layers says", kinds)
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise config.error("layer_types", "full_attention or sliding_attention", kind)
    if "sliding_attention" in kinds and not slides:
        raise config.error("use_sliding_window", "true where layer_types has sliding_attention", False)
    if "sliding_attention" in kinds and window is None:
        raise config.error("sliding_window", "a size where layer_types has sliding_attention", None)
    return [window if kind == "sliding_attention" else None for kind in kinds]


def olmo_hybrid(config: Settings) -> Family:
    """OLMo Hybrid: blocks of Gated DeltaNet, or of attention and norms after it. Raises ArchitectureError."""
    config.only("hidden_act", *SILU)
    config.only("attention_bias", False)
    heads = config.size("num_attention_heads")
    key_heads, value_heads = (
        config.size(f"linear_num_{part}_heads", default=heads, null=True) for part in ("key", "value")
    )
    if key_heads != value_heads:
        raise config.error(
            "linear_num_value_heads", f"{key_heads}, as many as linear_num_key_heads", value_heads
        )
    default_key_dim = int(0.75 * config.size("hidden_size") / key_heads)
    key_dim = config.size("linear_key_head_dim", default=default_key_dim, null=True)
    shape = {
        "heads": key_heads,
        "key_dim": key_dim,
        "value_dim": config.size("linear_value_head_dim", default=2 * key_dim, null=True),
        "conv": config.size("linear_conv_kernel_dim", default=4),
        "negative_eigenvalues": config.flag("linear_allow_neg_eigval", default=True),
    }
    feedforward = {"operator": "swiglu", "shape": {"hidden": config.size("intermediate_size")}}
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    kinds = config.names("layer_types")
    if kinds is None:  # by default every fourth block has attention; with fewer than four, the last one
        full = range(3, blocks, 4) or (blocks - 1,)
        kinds = ["full_attention" if block in full else "linear_attention" for block in range(blocks)]
    if len(kinds) != blocks:
        raise config.error("layer_types", f"{blocks} entries, as num_hidden_layers says", kinds)
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    for block, kind in enumerate(kinds):
        layer, ours = f"model.layers.{block}", 2 * block
        if kind == "linear_attention":
            mixer = f"{layer}.linear_attn"
            layers += [{"operator": "gated_deltanet", "shape": shape}, feedforward]
            names |= layer_names(ours, mixer, GATED_DELTANET, f"{layer}.input_layernorm.weight")
            names[f"layers.{ours}.operator.conv.weight"] = tuple(
                f"{mixer}.{part}_conv1d.weight" for part in "qkv"
            )
            norm = f"{layer}.post_attention_layernorm.weight"
        elif kind == "full_attention":
            layers += [
                {**part, "norm_position": "after"}
                for part in (attention_layer(config, qk_norm="full"), feedforward)
            ]
            names |= layer_names(
                ours, f"{layer}.self_attn", ATTENTION + QK_NORM, f"{layer}.post_attention_layernorm.weight"
            )
            norm = f"{layer}.post_feedforward_layernorm.weight"
        else:
            raise config.error(f"layer_types.{block}", "linear_attention or full_attention", kind)
        names |= layer_names(ours + 1, f"{layer}.mlp", SWIGLU, norm)
    renames = (
        ("attention_layer_norm", "input_layernorm"),
        ("feedforward_layer_norm", "post_attention_layernorm"),
    )
    fields = {
        "rope": rope(config, may_be_off=True),
        "norm_eps": config.real("rms_norm_eps", default=1e-6),
    }
    return fields, layers, names, renames
