"""The adapter of LFM2: blocks of a gated short convolution or attention, with SwiGLU."""

from collections.abc import Sequence
from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.published.forms import CONV
from operators.published.padding import blocks_of
from operators.published.rotation import rope
from operators.published.settings import Settings
from operators.published.shapes import (
    attention_config,
    hidden_of,
    padding_config,
    rope_config,
    shape_of,
    with_attention,
)
from operators.published.tensor_names import Family, layer_names, outside_names
from operators.published.transformer_families import attention_layer

SHORT_CONV = {
    "in_proj.weight": "in_proj.weight",
    "conv.weight": "conv.weight",
    "out_proj.weight": "out_proj.weight",
}
ATTENTION = {
    **{name: name for name in ("q_proj.weight", "k_proj.weight", "v_proj.weight")},
    "o_proj.weight": "out_proj.weight",
    "q_norm.weight": "q_layernorm.weight",
    "k_norm.weight": "k_layernorm.weight",
}
FEED_FORWARD = {
    "gate_proj.weight": "w1.weight",
    "up_proj.weight": "w3.weight",
    "down_proj.weight": "w2.weight",
}


def lfm2(config: Settings) -> Family:
    """LFM2. Raises ArchitectureError."""
    config.only("conv_bias", False)
    shape = {"channels": config.size("hidden_size"), "conv": config.size("conv_L_cache", default=3)}
    mixers = {
        "conv": {"operator": "short_conv", "shape": shape},
        "full_attention": attention_layer(config, qk_norm="head"),
    }
    feedforward = {"operator": "swiglu", "shape": {"hidden": _hidden(config)}}
    names, layers, forms = outside_names("model.embed_tokens.weight", "model.embedding_norm.weight"), [], {}
    for block, kind in enumerate(_kinds(config)):
        layer, ours = f"model.layers.{block}", 2 * block
        layers += [mixers[kind], feedforward]
        place, inside = ("conv", SHORT_CONV) if kind == "conv" else ("self_attn", ATTENTION)
        names |= layer_names(ours, f"{layer}.{place}", inside, f"{layer}.operator_norm.weight")
        if kind == "conv":
            forms[f"layers.{ours}.operator.conv.weight"] = CONV
        names |= layer_names(ours + 1, f"{layer}.feed_forward", FEED_FORWARD, f"{layer}.ffn_norm.weight")
    fields = {"rope": rope(config, theta=1_000_000.0), "norm_eps": config.real("norm_eps", default=1e-5)}
    return Family(fields, layers, names, forms=forms)


def _kinds(config: Settings) -> Sequence[str]:
    """The mixer of every block: by `layer_types`, or attention in the blocks of `full_attn_idxs`."""
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    full = config.get("full_attn_idxs", null=True)
    full = list(range(blocks)) if full is None else full
    if not isinstance(full, list) or any(type(number) is not int for number in full):
        raise config.error("full_attn_idxs", "a list of numbers", full)
    usual = ["full_attention" if block in full else "conv" for block in range(blocks)]
    return config.kinds("layer_types", blocks, default=usual, known=("conv", "full_attention"))


def _hidden(config: Settings) -> int:
    """The inner width of SwiGLU, which the class may compute from the configured one."""
    hidden = config.size("block_ff_dim", "intermediate_size", default=12_288)
    multiple = config.size("block_multiple_of", default=256)
    factor = config.real("block_ffn_dim_multiplier", default=1.0)
    if not config.flag("block_auto_adjust_ff_dim", default=True):
        return hidden
    return multiple * -(-int(factor * int(2 * hidden / 3)) // multiple)


def lfm2_config(architecture: Architecture) -> dict[str, Any]:
    """The way back."""
    blocks, mixers = with_attention(blocks_of(architecture), "short_conv", cheap=True)
    convolution = shape_of(architecture, "short_conv")
    return {
        "layer_types": ["conv" if mixer == "short_conv" else "full_attention" for mixer in mixers],
        "num_hidden_layers": len(blocks),
        "intermediate_size": hidden_of(architecture),
        "block_auto_adjust_ff_dim": False,
        "norm_eps": architecture.norm_eps,
        "conv_L_cache": convolution.conv if convolution else 3,
        "conv_bias": False,
        "rope_parameters": rope_config(architecture.rope),
        **attention_config(architecture),
        **padding_config(blocks),
    }
