"""The adapter of OLMo Hybrid: blocks of Gated DeltaNet, or of attention and norms after it, with SwiGLU."""

from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.library.gated_deltanet import GatedDeltaNetShape
from operators.published.forms import conv
from operators.published.padding import Block, blocks_of
from operators.published.rotation import rope
from operators.published.settings import Settings
from operators.published.shapes import (
    attention_config,
    hidden_of,
    padding_config,
    rope_config,
    shape_of,
)
from operators.published.tensor_names import (
    ATTENTION,
    GATED_DELTANET,
    QK_NORM,
    SWIGLU,
    Family,
    layer_names,
    outside_names,
)
from operators.published.transformer_families import SILU, attention_layer


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
    # By default every fourth block has attention; with fewer than four, the last one.
    full = range(3, blocks, 4) or (blocks - 1,)
    usual = ["full_attention" if block in full else "linear_attention" for block in range(blocks)]
    kinds = config.kinds("layer_types", blocks, default=usual)
    names, layers, forms = outside_names("model.embed_tokens.weight", "model.norm.weight"), [], {}
    for block, kind in enumerate(kinds):
        layer, ours = f"model.layers.{block}", 2 * block
        if kind == "linear_attention":
            mixer, convolution = f"{layer}.linear_attn", f"layers.{ours}.operator.conv.weight"
            layers += [{"operator": "gated_deltanet", "shape": shape}, feedforward]
            names |= layer_names(ours, mixer, GATED_DELTANET, f"{layer}.input_layernorm.weight")
            names[convolution] = tuple(f"{mixer}.{part}_conv1d.weight" for part in "qkv")
            keys, values = shape["heads"] * shape["key_dim"], shape["heads"] * shape["value_dim"]
            forms[convolution] = conv(keys, keys, values)
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
    return Family(fields, layers, names, renames, forms)


def olmo_hybrid_config(architecture: Architecture) -> dict[str, Any]:
    """The way back; the class wants a block of each kind at least."""
    blocks = blocks_of(architecture)
    mixers = [_olmo_mixer(block) for block in blocks]
    lacking = [operator for operator in LAYER_TYPES if operator not in mixers]
    blocks, mixers = [*blocks, *((None, None) for _ in lacking)], [*mixers, *lacking]
    rotation = {**rope_config(architecture.rope)}
    if architecture.rope is None:
        rotation["rope_theta"] = None
    shape = shape_of(architecture, "gated_deltanet") or SMALL_DELTANET
    return {
        **deltanet_config(architecture, shape),
        "layer_types": [LAYER_TYPES[mixer] for mixer in mixers],
        "num_hidden_layers": len(blocks),
        "linear_allow_neg_eigval": shape.negative_eigenvalues,
        "rope_parameters": rotation,
        **padding_config(blocks),
    }


def _olmo_mixer(block: Block) -> str:
    """The mixer of a block; without one, the one beside which feed-forward networks are normalized as its."""
    mixer, feedforward = block
    if mixer is not None:
        return mixer.operator
    before = feedforward is not None and feedforward.norm_position == "before"
    return "gated_deltanet" if before else "attention"


LAYER_TYPES = {"gated_deltanet": "linear_attention", "attention": "full_attention"}
SMALL_DELTANET = GatedDeltaNetShape(heads=1, key_dim=64, value_dim=64)


def deltanet_config(architecture: Architecture, shape: GatedDeltaNetShape) -> dict[str, Any]:
    """The keys of a family with Gated DeltaNet of this shape beside attention and SwiGLU."""
    return {
        "intermediate_size": hidden_of(architecture),
        "hidden_act": "silu",
        "rms_norm_eps": architecture.norm_eps,
        "linear_num_key_heads": shape.heads,
        "linear_num_value_heads": shape.heads,
        "linear_key_head_dim": shape.key_dim,
        "linear_value_head_dim": shape.value_dim,
        "linear_conv_kernel_dim": shape.conv,
        **attention_config(architecture),
    }
