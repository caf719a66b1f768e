"""The adapter of Granite's hybrids without experts: blocks of Mamba2 or attention, with SwiGLU."""

from collections.abc import Iterable
from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.library.attention import parameters as attention_parameters
from operators.library.mamba2 import Mamba2Shape
from operators.library.mamba2 import parameters as mamba2_parameters
from operators.published.forms import Form, scaled
from operators.published.mamba_families import mamba2_layer
from operators.published.padding import blocks_of
from operators.published.rotation import rope
from operators.published.settings import Settings
from operators.published.shapes import (
    CHUNK,
    SMALL_ATTENTION,
    attention_config,
    expand_of,
    hidden_of,
    padding_config,
    rope_config,
    shape_of,
    with_attention,
)
from operators.published.tensor_names import ATTENTION, Family, layer_names, mamba2_names, outside_names
from operators.published.transformer_families import SILU, attention_layer

KINDS = {
    "linear_attention": "mamba2",
    "mamba": "mamba2",
    "full_attention": "attention",
    "attention": "attention",
}
MAMBA_KEYS = (
    "mamba_n_heads",
    "mamba_d_head",
    "mamba_d_state",
    "mamba_n_groups",
    "mamba_d_conv",
    "mamba_conv_bias",
    "mamba_expand",
    "time_step_limit",
)
SHARED_MLP = {
    "gate_proj.weight": "input_linear.weight",
    "up_proj.weight": "input_linear.weight",
    "down_proj.weight": "output_linear.weight",
}


def granitemoehybrid(config: Settings) -> Family:
    """Granite's hybrid without experts, and the dense Granite 4. Raises ArchitectureError."""
    config.only("hidden_act", *SILU)
    config.only("attention_bias", False)
    config.only("mamba_proj_bias", False)
    if config.get("num_local_experts", default=8) != 0:
        raise config.error(
            "num_local_experts", "0, as experts are no operator", config.get("num_local_experts")
        )
    attention = attention_layer(config)
    mamba: dict[str, Any] | None = None
    feedforward = {
        "operator": "swiglu",
        "shape": {"hidden": config.size("shared_intermediate_size", default=1024)},
    }
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    forms: dict[str, Form] = {}
    kinds = _kinds(config)
    if "mamba2" not in kinds:
        config.without_effect(MAMBA_KEYS)
    for block, kind in enumerate(kinds):
        layer, ours = f"model.layers.{block}", 2 * block
        norm = f"{layer}.input_layernorm.weight"
        if kind == "mamba2":
            mamba = mamba or _mamba2(config)
            within, convolution = mamba2_names(ours, f"{layer}.mamba", norm)
            names, forms = names | within, forms | convolution
        else:
            names |= layer_names(ours, f"{layer}.self_attn", ATTENTION, norm)
        layers += [mamba if kind == "mamba2" and mamba else attention, feedforward]
        names |= layer_names(
            ours + 1, f"{layer}.shared_mlp", SHARED_MLP, f"{layer}.post_attention_layernorm.weight"
        )
    fields = {"rope": _rope(config), "norm_eps": config.real("rms_norm_eps", default=1e-6)}
    factors = _factors(config, names, attention["shape"]["head_dim"])
    forms |= {name: scaled(factor) for name, factor in factors.items()}
    return Family(fields, layers, names, forms=forms, remark=MULTIPLIED if factors else "")


MULTIPLIED = (
    "the multipliers of config.json became a part of the weights that they multiply, which are float32"
)


def _factors(config: Settings, names: Iterable[str], head_dim: int) -> dict[str, float]:
    """What the multipliers of a configuration make of our parameters; empty where all multiply by 1.

    A tied head would take the embedding's multiplier too, so that the norm before it takes it back.
    """
    embedding, residual, logits = (
        config.real(key, default=1.0)
        for key in ("embedding_multiplier", "residual_multiplier", "logits_scaling")
    )
    scores = config.real("attention_multiplier", default=1.0) * head_dim**0.5
    back = embedding if config.flag("tie_word_embeddings") else 1.0
    ends = {"operator.o_proj.weight": residual, "out_proj.weight": residual, "down_proj.weight": residual}
    ends |= {"operator.q_proj.weight": scores}
    factors = {name: factor for name in names for end, factor in ends.items() if name.endswith(end)}
    factors |= {"embedding.weight": embedding, "norm.weight": 1 / (logits * back)}
    # 1e-12: our own files have the root of a head's size, which is rounded.
    changed = {name: factor for name, factor in factors.items() if abs(factor - 1) > 1e-12}
    # The embedding's dtype stands for the model's, so it is float32 as well.
    return changed and {"embedding.weight": embedding, **changed}


def _kinds(config: Settings) -> list[str]:
    """Our mixer of every block."""
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    key = "layers_block_type" if config.names("layer_types") is None else "layer_types"
    kinds = config.kinds(key, blocks, default=["mamba"] * blocks, known=tuple(KINDS))
    return [KINDS[kind] for kind in kinds]


def _rope(config: Settings) -> dict[str, Any] | None:
    kind = config.get("position_embedding_type", null=True)
    if kind not in (None, "rope", "nope"):
        raise config.error("position_embedding_type", "rope or null", kind)
    rotation = rope(config)
    return rotation if kind == "rope" else None


def _mamba2(config: Settings) -> dict[str, Any]:
    heads, width = config.size("mamba_n_heads", default=128), config.size("hidden_size")
    inner = config.size("mamba_expand", default=2) * width
    if config.get("mamba_d_head", default="auto") == "auto":
        config = Settings({**config.values, "mamba_d_head": inner // heads}, where=config.where)
    layer = mamba2_layer(
        config,
        heads="mamba_n_heads",
        head_dim="mamba_d_head",
        state="mamba_d_state",
        older=GRANITE_KEYS,
        groups=1,
    )
    if (channels := layer["shape"]["heads"] * layer["shape"]["head_dim"]) != inner:
        raise config.error(
            "mamba_expand",
            f"mamba_n_heads x mamba_d_head, {channels}, to be mamba_expand x hidden_size",
            inner // width,
        )
    return layer


GRANITE_KEYS = {
    "n_groups": "mamba_n_groups",
    "conv_kernel": "mamba_d_conv",
    "use_conv_bias": "mamba_conv_bias",
}


def granitemoehybrid_config(architecture: Architecture) -> dict[str, Any]:
    """The way back. Layer types have the names that converters know, which transformers reads as well."""
    width = architecture.width
    attention = shape_of(architecture, "attention") or SMALL_ATTENTION
    mamba: Mamba2Shape = shape_of(architecture, "mamba2") or Mamba2Shape(heads=2, head_dim=width, state=16)
    cheap = attention_parameters(width, attention) <= mamba2_parameters(width, mamba)
    cheap = cheap or shape_of(architecture, "mamba2") is None
    blocks, mixers = with_attention(blocks_of(architecture), "mamba2", cheap=cheap)
    return {
        "layer_types": ["mamba" if mixer == "mamba2" else mixer for mixer in mixers],
        "num_hidden_layers": len(blocks),
        "shared_intermediate_size": hidden_of(architecture),
        "intermediate_size": hidden_of(architecture),
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "hidden_act": "silu",
        "rms_norm_eps": architecture.norm_eps,
        "position_embedding_type": None if architecture.rope is None else "rope",
        "rope_parameters": rope_config(architecture.rope),
        "attention_multiplier": attention.head_dim**-0.5,
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "mamba_n_heads": mamba.heads,
        "mamba_d_head": mamba.head_dim,
        "mamba_d_state": mamba.state,
        "mamba_n_groups": mamba.groups,
        "mamba_d_conv": mamba.conv,
        "mamba_expand": expand_of(architecture, mamba),
        "mamba_chunk_size": CHUNK,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
        **attention_config(architecture),
        **padding_config(blocks),
    }
