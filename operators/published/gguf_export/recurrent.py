"""GGUF models with Mamba2 layers: mamba2, nemotron_h and granitehybrid of llama.cpp."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from operators.architecture import Architecture
from operators.published.gguf_export.blocks import (
    SMALLEST,
    Half,
    blocks,
    norm,
    outside,
    require,
    require_one_shape,
    shapes_of,
    small,
)
from operators.published.gguf_export.outline import Misfit, Outline, Stored, Value
from operators.published.gguf_export.transformers import (
    attention,
    attention_keys,
    common_keys,
    rope_frequencies,
    swiglu,
)

# llama.cpp needs both attention and Mamba2 in a hybrid. Where one is missing, a small one of zeros stands in.
NO_ATTENTION = small(*SMALLEST["mixer"])
NO_MAMBA2 = {"heads": 1, "head_dim": 1, "state": 1, "groups": 1, "conv": 2}


def mamba2(architecture: Architecture) -> Outline:
    """Mamba2 layers alone. Raises Misfit."""
    require_one_shape(architecture, "mamba2")
    keys = common_keys(architecture, architecture.depth) | _state_keys(architecture.layers[0].shape)
    keys |= {"attention.head_count": 0, "feed_forward_length": 0}
    tensors = outside(architecture)
    for number, layer in enumerate(architecture.layers):
        tensors += _mamba2(Half(layer, number), f"blk.{number}", architecture.width)
    return Outline("mamba2", keys, tuple(tensors))


def nemotron_h(architecture: Architecture) -> Outline:
    """Layers of Mamba2, attention without positions and ReLU² in any order. Raises Misfit."""
    _require_plain_attention(architecture)
    _require_no_rope(architecture)
    halves = [Half(layer, number) for number, layer in enumerate(architecture.layers)]
    present = {layer.operator for layer in architecture.layers}
    lacking = {"attention": NO_ATTENTION, "mamba2": small("mamba2", NO_MAMBA2)}
    halves += [Half(layer, None) for operator, layer in lacking.items() if operator not in present]
    shapes = {half.layer.operator: half.shape for half in reversed(halves)}
    attends = [half.layer.operator == "attention" for half in halves]
    keys = common_keys(architecture, len(halves)) | _state_keys(shapes["mamba2"])
    keys |= attention_keys(shapes["attention"].head_dim, None) | _head_counts(halves)
    # A layer is Mamba2 to llama.cpp where it has neither heads of keys nor a hidden width.
    keys["feed_forward_length"] = [
        half.shape.hidden if half.layer.operator == "relu2" else 0 for half in halves
    ]
    # Needed, but for a head that we do not have.
    keys["attention.layer_norm_epsilon"] = architecture.norm_eps
    tensors = outside(architecture)
    for number, (half, yes) in enumerate(zip(halves, attends, strict=True)):
        name, width = f"blk.{number}", architecture.width
        if yes:
            tensors += attention(half, name, width, permuted=False)
        else:
            tensors += (_mamba2 if half.layer.operator == "mamba2" else _relu2)(half, name, width)
    return Outline("nemotron_h", keys, tuple(tensors))


def granitehybrid(architecture: Architecture) -> Outline:
    """Mamba2 or attention, each followed by SwiGLU. Raises Misfit."""
    _require_plain_attention(architecture)
    require_one_shape(architecture, "swiglu")
    for number, shape in shapes_of(architecture, "mamba2"):
        if shape.inner != 2 * architecture.width:
            raise Misfit(
                f"layers.{number}.shape.heads: expected heads x head_dim to be twice the width, "
                f"{2 * architecture.width}, beside swiglu, got {shape.heads} x {shape.head_dim}",
                layer=number,
            )
    present = {layer.operator for layer in architecture.layers}
    if "mamba2" not in present:
        raise Misfit("layers: expected a mamba2 in a granitehybrid of llama.cpp, got none", layer=0)
    pairs = blocks(architecture, missing=() if "attention" in present else (NO_ATTENTION,))
    shapes = {half.layer.operator: half.shape for b in reversed(pairs) for half in (b.mixer, b.feedforward)}
    mixers, head_dim = [block.mixer for block in pairs], shapes["attention"].head_dim
    keys = common_keys(architecture, len(pairs)) | _state_keys(shapes["mamba2"])
    keys |= attention_keys(head_dim, architecture.rope) | _head_counts(mixers)
    keys["feed_forward_length"] = shapes["swiglu"].hidden
    # In this family the key is the switch of rotary positions, which are silently off where it is false.
    keys["rope.scaling.finetuned"] = architecture.rope is not None
    tensors = outside(architecture)
    tensors += rope_frequencies(architecture, head_dim) if architecture.rope is not None else []
    for number, block in enumerate(pairs):
        name, width = f"blk.{number}", architecture.width
        attends = block.mixer.layer.operator == "attention"
        tensors += (
            attention(block.mixer, name, width, permuted=True)
            if attends
            else _mamba2(block.mixer, name, width)
        )
        tensors += swiglu(block.feedforward, name, width)
    return Outline("granitehybrid", keys, tuple(tensors))


def _head_counts(halves: Sequence[Half]) -> dict[str, Value]:
    """The heads of every layer, where a layer without keys does not attend.

    llama.cpp divides by the first layer's heads before it looks at its kind, so that no layer has 0.
    """
    attends = [half.layer.operator == "attention" for half in halves]
    some: int = next(half.shape.heads for half, yes in zip(halves, attends, strict=True) if yes)
    return {
        "attention.head_count": [
            half.shape.heads if yes else some for half, yes in zip(halves, attends, strict=True)
        ],
        "attention.head_count_kv": [
            half.shape.kv_heads if yes else 0 for half, yes in zip(halves, attends, strict=True)
        ],
    }


def _require_plain_attention(architecture: Architecture) -> None:
    """Raises Misfit for norms and windows, and where layers differ in the size of what they keep."""
    for name, expected in (("qk_norm", "none"), ("window", None)):
        require(architecture, "attention", name, expected)
    require_one_shape(architecture, "attention", ("head_dim",))
    require_one_shape(architecture, "mamba2")


def _require_no_rope(architecture: Architecture) -> None:
    for number, _ in shapes_of(architecture, "attention"):
        if architecture.rope is not None:
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
        Stored(f"{name}.ssm_conv1d.weight", (channels, shape.conv), ("operator.conv.weight",), precise=True),
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
