"""Adapters of Qwen3.5's text model and Qwen3-Next: blocks of Gated DeltaNet or attention, with SwiGLU.

Their attention has a gate, which attention here has not. So only models are read whose gates are all a half,
as the ones that are exported.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.library.gated_deltanet import HEAD_NORM_EPS
from operators.published.delta_families import LAYER_TYPES, SMALL_DELTANET, deltanet_config
from operators.published.forms import CENTRED, CONV, DOUBLED, Form, without_gate, woven
from operators.published.padding import blocks_of
from operators.published.rotation import rope
from operators.published.settings import Settings, all_held
from operators.published.shapes import padding_config, rope_config, shape_of, with_attention
from operators.published.tensor_names import ATTENTION, QK_NORM, SWIGLU, Family, layer_names, outside_names
from operators.published.transformer_families import SILU, attention_layer

QKV = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
DELTANET = {
    "conv.weight": "conv1d.weight",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "o_norm.weight": "norm.weight",
    "o_proj.weight": "out_proj.weight",
}
QWEN3_5_DELTANET = {
    **DELTANET,
    **dict.fromkeys(QKV, "in_proj_qkv.weight"),
    "a_proj.weight": "in_proj_a.weight",
    "b_proj.weight": "in_proj_b.weight",
    "g_proj.weight": "in_proj_z.weight",
}
QKVZ, BA = "in_proj_qkvz.weight", "in_proj_ba.weight"
QWEN3_NEXT_DELTANET = {
    **DELTANET,
    **dict.fromkeys((*QKV, "g_proj.weight"), QKVZ),
    **dict.fromkeys(("a_proj.weight", "b_proj.weight"), BA),
}


def qwen3_5_text(config: Settings) -> Family:
    """Qwen3.5's text model. Raises ArchitectureError, which names all that is not held."""
    _require_held(config)
    return _hybrid(config, QWEN3_5_DELTANET, images=True)


def qwen3_next(config: Settings) -> Family:
    """Qwen3-Next without experts. Raises ArchitectureError, which names all that is not held."""
    _require_held(config, lambda: _no_experts(config))
    return _hybrid(config, QWEN3_NEXT_DELTANET, images=False)


def _require_held(config: Settings, *more: Callable[[], None]) -> None:
    """Raises ArchitectureError with each feature of published models that we have not."""

    def gate() -> None:
        if config.flag("attn_output_gate"):
            raise config.error("attn_output_gate", "false, as attention has no gate here", True)

    def eps() -> None:
        # The norm of a head's values has the eps of the layers in the class, and its own one here.
        if (value := config.real("rms_norm_eps", default=1e-6)) != HEAD_NORM_EPS:
            raise config.error("rms_norm_eps", repr(HEAD_NORM_EPS), value)

    def heads() -> None:
        keys = config.size("linear_num_key_heads", default=16)
        if (values := config.size("linear_num_value_heads", default=32)) != keys:
            raise config.error("linear_num_value_heads", f"{keys}, as many as linear_num_key_heads", values)

    all_held(config.where, gate, lambda: _require_whole_rotation(config), eps, heads, *more)


def _require_whole_rotation(config: Settings) -> None:
    inner = config.mapping("rope_parameters")
    has_factor = inner if "partial_rotary_factor" in inner.values else config
    if has_factor.get("partial_rotary_factor") is None:
        raise inner.error("partial_rotary_factor", "1.0, as the class rotates a quarter of a head", None)
    has_factor.only("partial_rotary_factor", 1.0)


def _no_experts(config: Settings) -> None:
    """Raises ArchitectureError where a block has experts."""
    blocks, step = (
        config.size("num_hidden_layers", most=MAX_DEPTH),
        config.size("decoder_sparse_step", default=1),
    )
    experts = config.size("num_experts", default=512, least=0)
    dense = config.get("mlp_only_layers", default=[], null=True)
    if not isinstance(dense, list) or any(type(number) is not int for number in dense):
        raise config.error("mlp_only_layers", "a list of numbers", dense)
    if experts and any((block + 1) % step == 0 and block not in dense for block in range(blocks)):
        raise config.error("num_experts", "0, as experts are no operator", experts)


def _hybrid(config: Settings, deltanet: Mapping[str, str], *, images: bool) -> Family:
    """A family of blocks.

    deltanet: the tensors of Gated DeltaNet.
    images: whether the class has positions in images.

    Raises ArchitectureError.
    """
    config.only("hidden_act", *SILU)
    config.only("attention_bias", False)
    shape = {
        "heads": config.size("linear_num_key_heads", default=16),
        "key_dim": config.size("linear_key_head_dim", default=128),
        "value_dim": config.size("linear_value_head_dim", default=128),
        "conv": config.size("linear_conv_kernel_dim", default=4),
    }
    mixer = {"operator": "gated_deltanet", "shape": shape}
    feedforward = {"operator": "swiglu", "shape": {"hidden": config.size("intermediate_size")}}
    attention = attention_layer(config, head_dim=256, qk_norm="head")
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    forms: dict[str, Form] = {"norm.weight": CENTRED}
    heads, keys, values = shape["heads"], shape["key_dim"], shape["value_dim"]
    rows = {QKVZ: woven(heads, keys, keys, values, values), BA: woven(heads, 1, 1, order=(1, 0))}
    together: dict[str, Form] = {}
    for block, kind in enumerate(_kinds(config)):
        layer, ours = f"model.layers.{block}", 2 * block
        norm = f"{layer}.input_layernorm.weight"
        operator = f"layers.{ours}.operator"
        if kind == "linear_attention":
            layers += [mixer, feedforward]
            names |= layer_names(ours, f"{layer}.linear_attn", deltanet, norm)
            together |= {
                f"{layer}.linear_attn.{name}": form
                for name, form in rows.items()
                if name in deltanet.values()
            }
            forms[f"{operator}.conv.weight"] = CONV
        else:
            layers += [attention, feedforward]
            names |= layer_names(ours, f"{layer}.self_attn", ATTENTION + QK_NORM, norm)
            forms |= {f"{operator}.{name}": CENTRED for name in QK_NORM}
            forms[f"{operator}.q_proj.weight"] = without_gate(attention["shape"]["head_dim"])
            forms[f"{operator}.o_proj.weight"] = DOUBLED
        names |= layer_names(ours + 1, f"{layer}.mlp", SWIGLU, f"{layer}.post_attention_layernorm.weight")
        forms |= {f"layers.{number}.norm.weight": CENTRED for number in (ours, ours + 1)}
    about_rope = _without_images(config, attention["shape"]["head_dim"]) if images else config
    fields = {"rope": rope(about_rope), "norm_eps": HEAD_NORM_EPS}
    return Family(fields, layers, names, forms=forms, woven=together)


def _kinds(config: Settings) -> Sequence[str]:
    """The mixer of every block: by `layer_types`, or attention in each fourth."""
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    every = config.size("full_attention_interval", default=4)
    usual = ["linear_attention" if (block + 1) % every else "full_attention" for block in range(blocks)]
    return config.kinds("layer_types", blocks, default=usual, known=("linear_attention", "full_attention"))


def _without_images(config: Settings, head_dim: int) -> Settings:
    """The configuration without the keys on positions in an image, which change nothing in a text.

    Raises ArchitectureError.
    """
    parameters = config.mapping("rope_parameters")
    plain: Mapping[str, Any] = {
        key: value
        for key, value in parameters.values.items()
        if key not in ("mrope_section", "mrope_interleaved")
    }
    parts = parameters.get("mrope_section", default=[head_dim // 2])
    if not isinstance(parts, list) or sum(part for part in parts if isinstance(part, int)) != head_dim // 2:
        raise parameters.error("mrope_section", f"sizes that add up to {head_dim // 2}", parts)
    config.without_effect(("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor"))
    return Settings({**config.values, "rope_parameters": plain}, where=config.where)


def qwen3_5_text_config(architecture: Architecture) -> dict[str, Any]:
    """The way back. Every pair of a head is rotated by the position in the text."""
    config = _hybrid_config(architecture)
    half = config["head_dim"] // 2
    third = half // 3
    rotation = {**config["rope_parameters"], "mrope_section": [half - 2 * third, third, third]}
    return {**config, "rope_parameters": rotation}


def qwen3_next_config(architecture: Architecture) -> dict[str, Any]:
    """The way back."""
    return {**_hybrid_config(architecture), "num_experts": 0, "num_experts_per_tok": 0}


def _hybrid_config(architecture: Architecture) -> dict[str, Any]:
    blocks, mixers = with_attention(blocks_of(architecture), "gated_deltanet", cheap=True)
    shape = shape_of(architecture, "gated_deltanet") or SMALL_DELTANET
    return {
        **deltanet_config(architecture, shape),
        "rms_norm_eps": HEAD_NORM_EPS,  # the only one, see `_require_held`
        "layer_types": [LAYER_TYPES[mixer] for mixer in mixers],
        "num_hidden_layers": len(blocks),
        "rope_parameters": {**rope_config(architecture.rope), "partial_rotary_factor": 1.0},
        **padding_config(blocks),
    }
