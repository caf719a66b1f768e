"""The adapter of Kimi Linear without latent attention and experts: blocks of KDA and SwiGLU."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from operators.architecture import MAX_DEPTH, Architecture
from operators.library.kda import KDAShape
from operators.published.forms import Form, conv
from operators.published.padding import PADDING, ZERO_ATTENTION, blocks_of
from operators.published.settings import Settings, all_held
from operators.published.shapes import hidden_of, shape_of
from operators.published.tensor_names import ATTENTION, SWIGLU, Family, Zeros, layer_names, outside_names
from operators.published.transformer_families import SILU

KDA = {
    **{name: name for name in ATTENTION},
    "b_proj.weight": "b_proj.weight",
    "decay_down_proj.weight": "f_a_proj.weight",
    "decay_up_proj.weight": "f_b_proj.weight",
    "gate_down_proj.weight": "g_a_proj.weight",
    "gate_up_proj.weight": "g_b_proj.weight",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "o_norm.weight": "o_norm.weight",
}
RENAMES = (("forget_gate.", ""), ("block_sparse_moe", "mlp"))
"""From the class's names, and from those that transformers 5.23 saves, to the published ones."""

LATENT = 64
"""Every size of latent attention that only holds zeros, as of `shapes.SMALL_ATTENTION`."""


def kimi_linear(config: Settings) -> Family:
    """Kimi Linear. Raises ArchitectureError.

    Latent attention is no operator here. So only models are read whose latent attention, if any, has zeros
    for weights, as in the ones that are exported.
    """
    config.only("hidden_act", *SILU)
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    inner = config.mapping("linear_attn_config")
    heads, head_dim, taps = (
        _agreed(config, inner, f"linear_{ours}", theirs, default)
        for ours, theirs, default in (
            ("num_heads", "num_heads", 32),
            ("head_dim", "head_dim", 128),
            ("conv_kernel_dim", "short_conv_kernel_size", 4),
        )
    )
    kinds = _kinds(config, inner, blocks)
    all_held(
        config.where,
        lambda: _require_no_latent_attention(config, inner, kinds),
        lambda: _require_dense(config, blocks),
    )
    for key in ("gate_lower_bound", "use_full_rank_gate"):  # of Kimi K3
        inner.only(key, None, False, null=True)
    inner.refuse_unread("linear_attn_config", {})
    shape = {"heads": heads, "key_dim": head_dim, "value_dim": head_dim, "conv": taps}
    feedforward = {"operator": "swiglu", "shape": {"hidden": config.size("intermediate_size", default=9216)}}
    names = outside_names("model.embed_tokens.weight", "model.norm.weight")
    layers: list[dict[str, Any]] = []
    forms: dict[str, Form] = {}
    zeros: dict[str, Zeros] = {}
    for block, kind in enumerate(kinds):
        layer = f"model.layers.{block}"
        if kind == "linear_attention":
            operator, mixer = f"layers.{len(layers)}.operator", f"{layer}.self_attn"
            names |= layer_names(len(layers), mixer, KDA, f"{layer}.input_layernorm.weight")
            names[f"{operator}.conv.weight"] = tuple(f"{mixer}.{part}_conv1d.weight" for part in "qkv")
            forms[f"{operator}.conv.weight"] = conv(*[heads * head_dim] * 3)
            forms[f"{operator}.A_log"] = RATES
            layers.append({"operator": "kda", "shape": shape})
        else:
            zeros |= _latent_zeros(config, layer)
        names |= layer_names(len(layers), f"{layer}.mlp", SWIGLU, f"{layer}.post_attention_layernorm.weight")
        layers.append(feedforward)
    fields = {"rope": None, "norm_eps": config.real("rms_norm_eps", default=1e-5)}
    return Family(fields, layers, names, RENAMES, forms, zeros)


def _with_dimensions(rates: Tensor) -> Tensor:
    return rates.view(1, 1, -1, 1)


RATES = Form(outward=_with_dimensions)
"""One number for each head [H], published as [1, 1, H, 1]."""


def _agreed(config: Settings, inner: Settings, ours: str, theirs: str, default: int) -> int:
    """A size that the configuration or `linear_attn_config` has; the second one wins in transformers."""
    size = inner.size(theirs, default=config.size(ours, default=default))
    if ours in config.values and config.values[ours] != size:
        raise config.error(ours, f"{size}, as linear_attn_config says", config.values[ours])
    return size


def _kinds(config: Settings, inner: Settings, blocks: int) -> Sequence[str]:
    """The mixer of every block: by `layer_types`, or by the numbers from 1 in `linear_attn_config`."""
    known = ("linear_attention", "full_attention")
    full, linear = (inner.get(key, null=True) for key in ("full_attn_layers", "kda_layers"))
    if full is not None or linear is not None:
        full, linear = full or [], linear or []
        if (
            not isinstance(full, list)
            or not isinstance(linear, list)
            or (sorted([*full, *linear], key=repr) != sorted(range(1, blocks + 1), key=repr))
        ):
            raise inner.error(
                "kda_layers", f"with full_attn_layers each number from 1 to {blocks} once", [linear, full]
            )
        usual = [known[block + 1 in full] for block in range(blocks)]
    else:
        usual = [known[block > 0 and block % 4 == 0] for block in range(blocks)]
    kinds = config.kinds("layer_types", blocks, default=usual, known=known)
    if full is not None and list(kinds) != usual:
        raise config.error("layer_types", "the kinds that linear_attn_config says", kinds)
    return kinds


def _require_no_latent_attention(config: Settings, inner: Settings, kinds: Sequence[str]) -> None:
    """Raises ArchitectureError for latent attention whose weights are not zeros."""
    numbers = [block + 1 for block, kind in enumerate(kinds) if kind == "full_attention"]
    if not config.flag(ZERO_ATTENTION) and numbers:
        where, key = (
            (inner, "full_attn_layers") if "full_attn_layers" in inner.values else (config, "layer_types")
        )
        raise where.error(key, "no full attention, as latent attention is no operator", numbers)


def _require_dense(config: Settings, blocks: int) -> None:
    """Raises ArchitectureError where a block has experts."""
    dense = config.size("first_k_dense_replace", default=1, least=0)
    usual = ["dense" if block < dense else "sparse" for block in range(blocks)]
    kinds = config.kinds("mlp_layer_types", blocks, default=usual, known=("dense", "sparse"))
    if "sparse" in kinds:
        key = "first_k_dense_replace" if config.values.get("mlp_layer_types") is None else "mlp_layer_types"
        got = dense if key == "first_k_dense_replace" else kinds
        raise config.error(key, f"{blocks} dense layers, as experts are no operator", got)


def _latent_zeros(config: Settings, layer: str) -> dict[str, Zeros]:
    """The tensors of a block's latent attention. Raises ArchitectureError."""
    config.only("attention_bias", False)
    if config.get("q_lora_rank", null=True) is not None:
        raise config.error("q_lora_rank", "null", config.values["q_lora_rank"])
    width, heads = config.size("hidden_size"), config.size("num_attention_heads", default=32)
    rank, turned, plain, values = (
        config.size(key, default=size)
        for key, size in (
            ("kv_lora_rank", 512),
            ("qk_rope_head_dim", 64),
            ("qk_nope_head_dim", 128),
            ("v_head_dim", 128),
        )
    )
    shapes = {
        "q_proj": (heads * (plain + turned), width),
        "kv_a_proj_with_mqa": (rank + turned, width),
        "kv_a_layernorm": (rank,),
        "kv_b_proj": (heads * (plain + values), rank),
        "o_proj": (width, heads * values),
    }
    zeros = {
        f"{layer}.self_attn.{name}.weight": Zeros(shape, ZERO_ATTENTION) for name, shape in shapes.items()
    }
    return {**zeros, f"{layer}.input_layernorm.weight": Zeros((width,), ZERO_ATTENTION)}


def kimi_linear_config(architecture: Architecture) -> dict[str, Any]:
    """The way back, with the published keys, which other engines read too.

    Where a block has no mixer, it has latent attention of zeros, and one block at least has: without any
    attention `transformers` cannot generate with a cache.
    """
    blocks = blocks_of(architecture)
    if all(mixer is not None for mixer, _ in blocks):
        blocks.append((None, None))
    shape = shape_of(architecture, "kda") or KDAShape(heads=1, key_dim=64, value_dim=64)
    linear: list[int] = []
    full: list[int] = []
    padding: list[int] = []
    count = 0
    for number, (mixer, feedforward) in enumerate(blocks, 1):
        (full if mixer is None else linear).append(number)
        count += mixer is not None  # latent attention is no layer of ours
        padding += [count] if feedforward is None else []
        count += 1
    return {
        "num_hidden_layers": len(blocks),
        "hidden_act": "silu",
        "rms_norm_eps": architecture.norm_eps,
        "intermediate_size": hidden_of(architecture),
        "first_k_dense_replace": len(blocks),
        "linear_attn_config": {
            "kda_layers": linear,
            "full_attn_layers": full,
            "num_heads": shape.heads,
            "head_dim": shape.key_dim,
            "short_conv_kernel_size": shape.conv,
        },
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "q_lora_rank": None,
        **dict.fromkeys(("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), LATENT),
        ZERO_ATTENTION: True,
        **({PADDING: padding} if padding else {}),
    }
