"""GGUF models with Mamba2 layers: mamba2, nemotron_h and granitehybrid of llama.cpp."""

from typing import Any

from torch import Tensor

from operators.architecture import Architecture
from operators.published.gguf_export.blocks import (
    Half,
    blocks,
    norm,
    outside,
    require,
    require_one_shape,
    require_plain,
)
from operators.published.gguf_export.outline import Misfit, Outline, Stored, Value
from operators.published.gguf_export.transformers import (
    attention,
    attention_keys,
    common_keys,
    rope_frequencies,
    swiglu,
)

# llama.cpp divides by the number of heads before it looks at a layer's kind, so that a model without
# attention needs a number too.
NO_ATTENTION = {"heads": 1, "head_dim": 2}


def mamba2(architecture: Architecture) -> Outline:
    """Mamba2 layers alone. Raises Misfit."""
    require_plain(architecture, ("mamba2",))
    require_one_shape(architecture, "mamba2")
    keys = common_keys(architecture, architecture.depth) | _state_keys(architecture.layers[0].shape)
    keys |= {"attention.head_count": 0, "feed_forward_length": 0}
    tensors = outside(architecture)
    for number, layer in enumerate(architecture.layers):
        tensors += _mamba2(Half(layer, number), f"blk.{number}", architecture.width)
    return Outline("mamba2", keys, tuple(tensors))


def nemotron_h(architecture: Architecture) -> Outline:
    """Layers of Mamba2, attention without positions and ReLU² in any order. Raises Misfit."""
    require_plain(architecture, ("mamba2", "attention", "relu2"))
    _require_plain_attention(architecture)
    _require_no_rope(architecture)
    shapes = {layer.operator: layer.shape for layer in reversed(architecture.layers)}
    if "mamba2" not in shapes:
        raise Misfit("layers: expected a mamba2 in a nemotron_h of llama.cpp, got none", layer=0)
    tensors, heads, kv_heads, hidden = outside(architecture), [], [], []
    for number, layer in enumerate(architecture.layers):
        half, name = Half(layer, number), f"blk.{number}"
        attends = layer.operator == "attention"
        # A layer is Mamba2 to llama.cpp where both of the last two are 0.
        heads.append(layer.shape.heads if attends else _heads(shapes))
        kv_heads.append(layer.shape.kv_heads if attends else 0)
        hidden.append(layer.shape.hidden if layer.operator == "relu2" else 0)
        if layer.operator == "mamba2":
            tensors += _mamba2(half, name, architecture.width)
        elif attends:
            tensors += attention(half, name, architecture.width, permuted=False)
        else:
            tensors += _relu2(half, name, architecture.width)
    keys = common_keys(architecture, architecture.depth) | _state_keys(shapes["mamba2"])
    keys |= attention_keys(_head_dim(shapes), None)
    keys |= {
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "feed_forward_length": hidden,
        "attention.layer_norm_epsilon": architecture.norm_eps,  # needed, but for a head that we do not have
    }
    return Outline("nemotron_h", keys, tuple(tensors))


def granitehybrid(architecture: Architecture) -> Outline:
    """Mamba2 or attention, each followed by SwiGLU. Raises Misfit."""
    require_plain(architecture, ("mamba2", "attention", "swiglu"))
    _require_plain_attention(architecture)
    require_one_shape(architecture, "swiglu")
    for number, layer in enumerate(architecture.layers):
        if layer.operator == "mamba2" and layer.shape.inner != 2 * architecture.width:
            raise Misfit(
                f"layers.{number}.shape.heads: expected heads x head_dim to be twice the width, "
                f"{2 * architecture.width}, as llama.cpp needs in a granitehybrid, "
                f"got {layer.shape.heads} x {layer.shape.head_dim}",
                layer=number,
            )
    shapes = {layer.operator: layer.shape for layer in reversed(architecture.layers)}
    if "mamba2" not in shapes:
        raise Misfit("layers: expected a mamba2 in a granitehybrid of llama.cpp, got none", layer=0)
    tensors, pairs = outside(architecture), blocks(architecture)
    keys = common_keys(architecture, len(pairs)) | _state_keys(shapes["mamba2"])
    keys |= attention_keys(_head_dim(shapes), architecture.rope)
    attends = [block.mixer.layer.operator == "attention" for block in pairs]
    keys |= {
        "attention.head_count": [
            block.mixer.shape.heads if yes else _heads(shapes)
            for block, yes in zip(pairs, attends, strict=True)
        ],
        "attention.head_count_kv": [
            block.mixer.shape.kv_heads if yes else 0 for block, yes in zip(pairs, attends, strict=True)
        ],
        "feed_forward_length": shapes["swiglu"].hidden,
        # In this family the key is the switch of rotary positions, which are silently off where it is false.
        "rope.scaling.finetuned": architecture.rope is not None,
    }
    tensors += rope_frequencies(architecture, _head_dim(shapes))
    for number, (block, yes) in enumerate(zip(pairs, attends, strict=True)):
        name, width = f"blk.{number}", architecture.width
        tensors += (
            attention(block.mixer, name, width, permuted=True) if yes else _mamba2(block.mixer, name, width)
        )
        tensors += swiglu(block.feedforward, name, width)
    return Outline("granitehybrid", keys, tuple(tensors))


def _heads(shapes: dict[str, Any]) -> int:
    return shapes["attention"].heads if "attention" in shapes else NO_ATTENTION["heads"]


def _head_dim(shapes: dict[str, Any]) -> int:
    return shapes["attention"].head_dim if "attention" in shapes else NO_ATTENTION["head_dim"]


def _require_plain_attention(architecture: Architecture) -> None:
    """Raises Misfit for attention beyond heads and their groups, and where layers differ in a state's size."""
    for name, expected in (("qk_norm", "none"), ("qkv_bias", False), ("window", None)):
        require(architecture, "attention", name, expected)
    require_one_shape(architecture, "attention", ("head_dim",))
    require_one_shape(architecture, "mamba2")


def _require_no_rope(architecture: Architecture) -> None:
    if architecture.rope is None:
        return
    for number, layer in enumerate(architecture.layers):
        if layer.operator == "attention":
            raise Misfit(
                f"layers.{number}: expected attention without rotary positions (rope: null) beside relu2, "
                f"got theta {architecture.rope.theta:g}",
                layer=number,
            )


def _state_keys(shape: Any) -> dict[str, Value]:
    return {
        "ssm.conv_kernel": shape.conv,
        "ssm.inner_size": shape.inner,
        "ssm.state_size": shape.state,
        "ssm.time_step_rank": shape.heads,
        "ssm.group_count": shape.groups,
    }


def _mamba2(half: Half, name: str, width: int) -> list[Stored]:
    shape, channels = half.shape, half.shape.conv_channels
    heads, groups = (shape.heads, 1), (shape.groups, shape.inner // shape.groups)

    def column(values: Tensor) -> Tensor:
        return values[:, None]

    def rates(values: Tensor) -> Tensor:
        return -values.exp()[:, None]

    def by_group(values: Tensor) -> Tensor:
        return values.view(groups)

    rows = shape.inner + channels + shape.heads
    tensors = [
        norm(f"{name}.attn_norm.weight", width),
        Stored(f"{name}.ssm_in.weight", (rows, width), ("operator.in_proj.weight",)),
        Stored(
            f"{name}.ssm_conv1d.weight", (channels, shape.conv), ("operator.conv.weight",), precise=True
        ),
        Stored(f"{name}.ssm_conv1d.bias", (channels,), ("operator.conv.bias",), precise=True),
        Stored(f"{name}.ssm_dt.bias", (shape.heads,), ("operator.dt_bias",), precise=True),
        Stored(f"{name}.ssm_a", heads, ("operator.A_log",), rates, precise=True),
        Stored(f"{name}.ssm_d", heads, ("operator.D",), column, precise=True),
        Stored(f"{name}.ssm_norm.weight", groups, ("operator.norm.weight",), by_group, precise=True),
        Stored(f"{name}.ssm_out.weight", (width, shape.inner), ("operator.out_proj.weight",)),
    ]
    return half.stored(tensors)


def _relu2(half: Half, name: str, width: int) -> list[Stored]:
    hidden = half.shape.hidden
    return half.stored(
        [
            norm(f"{name}.attn_norm.weight", width),
            Stored(f"{name}.ffn_up.weight", (hidden, width), ("operator.up_proj.weight",)),
            Stored(f"{name}.ffn_down.weight", (width, hidden), ("operator.down_proj.weight",)),
        ]
    )
