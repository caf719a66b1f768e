"""Adapters of the families with blocks of attention and SwiGLU or ReLU²: Llama, Qwen2, Qwen3 and Arcee."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.published.padding import ZERO_BIASES, blocks_of
from operators.published.rotation import rope
from operators.published.settings import Settings
from operators.published.shapes import attention_config, hidden_of, padding_config, rope_config, shape_of
from operators.published.tensor_names import (
    ATTENTION,
    QK_NORM,
    QKV_BIAS,
    RELU2,
    SWIGLU,
    Family,
    Zeros,
    layer_names,
    outside_names,
)

SILU = ("silu", "swish")  # two names of one function
ACTIVATIONS = {"swiglu": SILU, "relu2": ("relu2",)}


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
    if not config.flag(ZERO_BIASES):
        return _transformer(config, shape={"qkv_bias": True}, inside=QKV_BIAS, windows=_windows(config))
    family = _transformer(config, windows=_windows(config))
    shape = attention_layer(config)["shape"]
    zeros = {
        f"model.layers.{block}.self_attn.{bias}": Zeros((shape[heads] * shape["head_dim"],), ZERO_BIASES)
        for block in range(len(family.layers) // 2)
        for bias, heads in zip(QKV_BIAS, ("heads", "kv_heads", "kv_heads"), strict=True)
    }
    return replace(family, zeros=zeros)


def qwen3(config: Settings) -> Family:
    """Qwen3: queries and keys are normalized by head. Raises ArchitectureError."""
    config.only("attention_bias", False)
    return _transformer(
        config, shape={"qk_norm": "head"}, inside=QK_NORM, windows=_windows(config), head_dim=128
    )


def arcee(config: Settings) -> Family:
    """Arcee: Llama with ReLU² in place of SwiGLU. Raises ArchitectureError."""
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    return _transformer(config, feedforward="relu2", norm_eps=1e-5)


def arcee_config(architecture: Architecture) -> dict[str, Any]:
    """The way back: blocks of attention and ReLU²."""
    hidden = hidden_of(architecture, "relu2")
    return {**llama_config(architecture), "intermediate_size": hidden, "hidden_act": "relu2"}


def llama_config(architecture: Architecture) -> dict[str, Any]:
    """The way back: blocks of attention and SwiGLU."""
    blocks = blocks_of(architecture)
    return {
        "num_hidden_layers": len(blocks),
        "intermediate_size": hidden_of(architecture),
        "hidden_act": "silu",
        "rms_norm_eps": architecture.norm_eps,
        "rope_parameters": rope_config(architecture.rope),
        **attention_config(architecture),
        **padding_config(blocks),
    }


def qwen2_config(architecture: Architecture) -> dict[str, Any]:
    """The way back for Qwen2: where attention with windows has no biases, they are zeros.

    Attention without windows has a class without biases, Llama.
    """
    config, shape = qwen_config(architecture), shape_of(architecture, "attention")
    plain = config["use_sliding_window"] and not shape.qkv_bias
    return {**config, ZERO_BIASES: True} if plain else config


def qwen_config(architecture: Architecture) -> dict[str, Any]:
    """The way back for Qwen2 and Qwen3: the same with windows."""
    return {**llama_config(architecture), **_window_config(architecture)}


def _window_config(architecture: Architecture) -> dict[str, Any]:
    windows = [
        mixer.shape.model_dump().get("window") if mixer else None for mixer, _ in blocks_of(architecture)
    ]
    size = next((window for window in windows if window is not None), None)
    if size is None:
        return {"use_sliding_window": False, "sliding_window": None}
    kinds = ["full_attention" if window is None else "sliding_attention" for window in windows]
    return {"use_sliding_window": True, "sliding_window": size, "layer_types": kinds}


def _transformer(
    config: Settings,
    *,
    shape: Mapping[str, Any] | None = None,
    inside: tuple[str, ...] = (),
    windows: Sequence[int | None] | None = None,
    head_dim: int | None = None,
    feedforward: str = "swiglu",
    norm_eps: float = 1e-6,
) -> Family:
    """A family with blocks of attention and a feed-forward network.

    shape: further numbers of its attention's shape.
    inside: further parameters of its attention.
    windows: the window of each block.
    head_dim: the family's default; None for the width divided by the heads.
    feedforward: the operator.
    norm_eps: the family's default.
    """
    config.only("hidden_act", *ACTIVATIONS[feedforward])
    hidden = {"operator": feedforward, "shape": {"hidden": config.size("intermediate_size")}}
    matrices = SWIGLU if feedforward == "swiglu" else RELU2
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    for block in range(config.size("num_hidden_layers", most=MAX_DEPTH)):
        window = windows[block] if windows else None
        layers += [attention_layer(config, head_dim=head_dim, window=window, **shape or {}), hidden]
        layer = f"model.layers.{block}"
        names |= layer_names(
            2 * block, f"{layer}.self_attn", ATTENTION + inside, f"{layer}.input_layernorm.weight"
        )
        names |= layer_names(
            2 * block + 1, f"{layer}.mlp", matrices, f"{layer}.post_attention_layernorm.weight"
        )
    fields = {"rope": rope(config), "norm_eps": config.real("rms_norm_eps", default=norm_eps)}
    return Family(fields, layers, names)


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
    listed = config.names("layer_types") is not None
    full = blocks if listed or window is None else config.size("max_window_layers", default=28, least=0)
    usual = ["full_attention" if block < full else "sliding_attention" for block in range(blocks)]
    known = ("full_attention", "sliding_attention")
    kinds = config.kinds("layer_types", blocks, default=usual, known=known)
    if "sliding_attention" in kinds and not slides:
        raise config.error("use_sliding_window", "true where layer_types has sliding_attention", False)
    if "sliding_attention" in kinds and window is None:
        raise config.error("sliding_window", "a size where layer_types has sliding_attention", None)
    return [window if kind == "sliding_attention" else None for kind in kinds]
