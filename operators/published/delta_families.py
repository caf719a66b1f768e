"""Adapters of the families with Gated DeltaNet: OLMo Hybrid and Qwen3.5's text model."""

from collections.abc import Mapping, Sequence
from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.library.gated_deltanet import HEAD_NORM_EPS, GatedDeltaNetShape
from operators.published.forms import CENTRED, CONV, DOUBLED, Form, conv, without_gate
from operators.published.padding import Block, blocks_of
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

QKV = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
QWEN3_5_DELTANET = {
    **dict.fromkeys(QKV, "in_proj_qkv.weight"),
    "a_proj.weight": "in_proj_a.weight",
    "b_proj.weight": "in_proj_b.weight",
    "g_proj.weight": "in_proj_z.weight",
    "conv.weight": "conv1d.weight",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "o_norm.weight": "norm.weight",
    "o_proj.weight": "out_proj.weight",
}


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
        **_common_config(architecture, shape),
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


def _common_config(architecture: Architecture, shape: GatedDeltaNetShape) -> dict[str, Any]:
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


def qwen3_5_text(config: Settings) -> Family:
    """Qwen3.5's text model: blocks of Gated DeltaNet or attention, with SwiGLU. Raises ArchitectureError.

    Its attention has a gate, which attention here has not. So only models are read whose gates are all a
    half, as the ones that are exported.
    """
    config.only("hidden_act", *SILU)
    config.only("attention_bias", False)
    # The norm of a head's values has the eps of the layers in the class, and its own one here.
    config.only("rms_norm_eps", HEAD_NORM_EPS)
    heads = config.size("linear_num_key_heads", default=16)
    if (value_heads := config.size("linear_num_value_heads", default=32)) != heads:
        raise config.error("linear_num_value_heads", f"{heads}, as many as linear_num_key_heads", value_heads)
    shape = {
        "heads": heads,
        "key_dim": config.size("linear_key_head_dim", default=128),
        "value_dim": config.size("linear_value_head_dim", default=128),
        "conv": config.size("linear_conv_kernel_dim", default=4),
    }
    mixer = {"operator": "gated_deltanet", "shape": shape}
    feedforward = {"operator": "swiglu", "shape": {"hidden": config.size("intermediate_size")}}
    attention = attention_layer(config, head_dim=256, qk_norm="head")
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    forms: dict[str, Form] = {"norm.weight": CENTRED}
    for block, kind in enumerate(_kinds(config)):
        layer, ours = f"model.layers.{block}", 2 * block
        norm = f"{layer}.input_layernorm.weight"
        operator = f"layers.{ours}.operator"
        if kind == "linear_attention":
            layers += [mixer, feedforward]
            names |= layer_names(ours, f"{layer}.linear_attn", QWEN3_5_DELTANET, norm)
            forms[f"{operator}.conv.weight"] = CONV
        else:
            layers += [attention, feedforward]
            names |= layer_names(ours, f"{layer}.self_attn", ATTENTION + QK_NORM, norm)
            forms |= {f"{operator}.{name}": CENTRED for name in QK_NORM}
            forms[f"{operator}.q_proj.weight"] = without_gate(attention["shape"]["head_dim"])
            forms[f"{operator}.o_proj.weight"] = DOUBLED
        names |= layer_names(ours + 1, f"{layer}.mlp", SWIGLU, f"{layer}.post_attention_layernorm.weight")
        forms |= {f"layers.{number}.norm.weight": CENTRED for number in (ours, ours + 1)}
    rotation = _whole_rotation(config, attention["shape"]["head_dim"])
    return Family({"rope": rotation, "norm_eps": HEAD_NORM_EPS}, layers, names, forms=forms)


def _kinds(config: Settings) -> Sequence[str]:
    """The mixer of every block: by `layer_types`, or attention in each fourth."""
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    every = config.size("full_attention_interval", default=4)
    usual = ["linear_attention" if (block + 1) % every else "full_attention" for block in range(blocks)]
    return config.kinds("layer_types", blocks, default=usual, known=("linear_attention", "full_attention"))


def _whole_rotation(config: Settings, head_dim: int) -> dict[str, Any] | None:
    """The rotation, in which the positions in an image, which a text does not have, change nothing."""
    parameters = config.mapping("rope_parameters")
    if "partial_rotary_factor" not in {**config.values, **parameters.values}:
        raise parameters.error("partial_rotary_factor", "1.0, as the class rotates a quarter of a head", None)
    plain: Mapping[str, Any] = {
        key: value
        for key, value in parameters.values.items()
        if key not in ("mrope_section", "mrope_interleaved")
    }
    parts = parameters.get("mrope_section", default=[head_dim // 2])
    if not isinstance(parts, list) or sum(part for part in parts if isinstance(part, int)) != head_dim // 2:
        raise parameters.error("mrope_section", f"sizes that add up to {head_dim // 2}", parts)
    inner = Settings({**config.values, "rope_parameters": plain}, where=config.where)
    config.without_effect(("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor"))
    return rope(inner)


def qwen3_5_text_config(architecture: Architecture) -> dict[str, Any]:
    """The way back. Every pair of a head is rotated by the position in the text."""
    blocks, mixers = with_attention(blocks_of(architecture), "gated_deltanet", cheap=True)
    shape = shape_of(architecture, "gated_deltanet") or SMALL_DELTANET
    attention = attention_config(architecture)
    half = attention["head_dim"] // 2
    third = half // 3
    return {
        **_common_config(architecture, shape),
        "rms_norm_eps": HEAD_NORM_EPS,  # the only one, see `qwen3_5_text`
        "layer_types": [LAYER_TYPES[mixer] for mixer in mixers],
        "num_hidden_layers": len(blocks),
        "rope_parameters": {
            **rope_config(architecture.rope),
            "partial_rotary_factor": 1.0,
            "mrope_section": [half - 2 * third, third, third],
        },
        **padding_config(blocks),
    }
