"""GGUF models of attention beside another mixer of a short memory: qwen35 and lfm2 of llama.cpp."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.library.gated_deltanet import HEAD_NORM_EPS
from operators.published.gguf_export.blocks import (
    Block,
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
    require_plain_rope,
    require_whole_width,
    swiglu,
)

SHORT_KEYS = (
    "llama.cpp adds nothing to the length of queries and keys of gated_deltanet, where 1e-6 is added here to "
    "its square: log-probabilities may differ by some 1e-4"
)


def qwen35(architecture: Architecture) -> Outline:
    """Gated DeltaNet or attention, each followed by SwiGLU. Raises Misfit."""
    require(architecture, "attention", "qkv_bias", False)
    require(architecture, "gated_deltanet", "negative_eigenvalues", False)
    for number, shape in shapes_of(architecture, "gated_deltanet"):
        if shape.key_dim != shape.value_dim:
            raise Misfit(
                f"layers.{number}.shape.value_dim: expected {shape.key_dim}, as key_dim, "
                f"got {shape.value_dim}",
                layer=number,
            )
        if architecture.norm_eps != HEAD_NORM_EPS:
            raise Misfit(
                f"norm_eps: expected {HEAD_NORM_EPS:g}, which layers.{number} (gated_deltanet) has within, "
                f"got {architecture.norm_eps:g}",
                layer=number,
            )
    pairs, shapes = _pairs(architecture, "gated_deltanet", {"heads": 1, "kv_heads": 1, "head_dim": 2})
    own, heads = shapes["gated_deltanet"], shapes["attention"]
    keys = _keys(architecture, pairs, shapes) | {
        "attention.head_count_kv": heads.kv_heads,
        "ssm.conv_kernel": own.conv,
        "ssm.inner_size": own.values,
        "ssm.state_size": own.key_dim,
        "ssm.time_step_rank": own.heads,
        "ssm.group_count": own.heads,
        "rope.dimension_sections": _sections(heads.head_dim // 2),
        "attention.recurrent_layers": [not _attends(block) for block in pairs],
    }
    tensors = outside(architecture)
    for number, block in enumerate(pairs):
        name, width = f"blk.{number}", architecture.width
        tensors += (
            _half_open(attention(block.mixer, name, width, permuted=False), heads.heads)
            if _attends(block)
            else _gated_deltanet(block.mixer, name, width)
        )
        tensors += swiglu(block.feedforward, name, width, normalization="post_attention_norm")
    return Outline("qwen35", keys, tuple(tensors), (SHORT_KEYS,))


def lfm2(architecture: Architecture) -> Outline:
    """Short convolutions or attention, each followed by SwiGLU. Raises Misfit."""
    require(architecture, "short_conv", "channels", architecture.width, ", the width")
    require_whole_width(architecture)
    one_head = {"heads": 1, "kv_heads": 1, "head_dim": architecture.width}
    pairs, shapes = _pairs(architecture, "short_conv", one_head)
    keys = _keys(architecture, pairs, shapes) | {
        "attention.head_count_kv": [shapes["attention"].kv_heads if _attends(b) else 0 for b in pairs],
        "shortconv.l_cache": shapes["short_conv"].conv,
    }
    # This model of llama.cpp has the norm of the output under the name of another one.
    tensors = outside(architecture, "token_embd_norm")
    for number, block in enumerate(pairs):
        name, width = f"blk.{number}", architecture.width
        tensors += (
            attention(block.mixer, name, width, permuted=False)
            if _attends(block)
            else _short_conv(block.mixer, name, width)
        )
        tensors += swiglu(block.feedforward, name, width)
    return Outline("lfm2", keys, tuple(tensors))


def _pairs(
    architecture: Architecture, recurrent: str, no_attention: Mapping[str, Any]
) -> tuple[list[Block], dict[str, Any]]:
    """The blocks, and the one shape of every operator.

    recurrent: the mixer beside attention.
    no_attention: the shape of an attention without weights, which stands in where there is no other.

    Raises Misfit.
    """
    present = {layer.operator for layer in architecture.layers}
    if recurrent not in present:
        raise Misfit(f"layers: expected a {recurrent}, got none", layer=0)
    require(architecture, "attention", "qk_norm", "head", f" beside {recurrent}")
    require(architecture, "attention", "window", None)
    for operator in (recurrent, "attention", "swiglu"):
        require_one_shape(architecture, operator)
    attending = "attention" in present
    if attending:
        require_plain_rope(architecture)
    missing = () if attending else (small("attention", {**no_attention, "qk_norm": "head"}),)
    pairs = blocks(architecture, missing=missing)
    return pairs, {half.layer.operator: half.shape for b in pairs for half in (b.mixer, b.feedforward)}


def _keys(architecture: Architecture, pairs: Sequence[Block], shapes: Mapping[str, Any]) -> dict[str, Value]:
    keys = common_keys(architecture, len(pairs))
    keys |= attention_keys(shapes["attention"].head_dim, architecture.rope)
    keys["attention.head_count"] = shapes["attention"].heads
    keys["feed_forward_length"] = shapes["swiglu"].hidden
    return keys


def _attends(block: Block) -> bool:
    return block.mixer.layer.operator == "attention"


def _sections(pairs: int) -> list[int]:
    """How many of a head's rotated pairs follow each of the positions that an image has, in turns.

    A text has three equal positions and a fourth one of 0, which no pair may follow.
    """
    return [(pairs + 2) // 3, (pairs + 1) // 3, pairs // 3, 0]


def _half_open(tensors: list[Stored], heads: int) -> list[Stored]:
    """The same attention with a gate that is always one half, which twice the output projection undoes."""

    def gated(queries: Tensor) -> Tensor:
        by_head = queries.unflatten(0, (heads, -1))
        return torch.cat([by_head, torch.zeros_like(by_head)], 1).flatten(0, 1)

    def twice(output: Tensor) -> Tensor:
        return 2 * output

    opened = []
    for tensor in tensors:
        rows, *rest = tensor.shape
        if tensor.name.endswith("attn_q.weight"):
            tensor = Stored(tensor.name, (2 * rows, *rest), tensor.parts, gated)
        elif tensor.name.endswith("attn_output.weight"):
            tensor = Stored(tensor.name, tensor.shape, tensor.parts, twice)
        opened.append(tensor)
    return opened


def _gated_deltanet(half: Half, name: str, width: int) -> list[Stored]:
    shape, channels = half.shape, 2 * half.shape.keys + half.shape.values

    def rates(values: Tensor) -> Tensor:
        return -values.exp()

    inputs = tuple(f"operator.{letter}_proj.weight" for letter in "qkv")
    tensors = [
        norm(f"{name}.attn_norm.weight", width),
        Stored(f"{name}.attn_qkv.weight", (channels, width), inputs),
        Stored(f"{name}.attn_gate.weight", (shape.values, width), ("operator.g_proj.weight",)),
        Stored(f"{name}.ssm_conv1d.weight", (channels, shape.conv), ("operator.conv.weight",), precise=True),
        Stored(f"{name}.ssm_dt.bias", (shape.heads,), ("operator.dt_bias",), precise=True),
        Stored(f"{name}.ssm_a", (shape.heads,), ("operator.A_log",), rates, precise=True),
        Stored(f"{name}.ssm_beta.weight", (shape.heads, width), ("operator.b_proj.weight",)),
        Stored(f"{name}.ssm_alpha.weight", (shape.heads, width), ("operator.a_proj.weight",)),
        Stored(f"{name}.ssm_norm.weight", (shape.value_dim,), ("operator.o_norm.weight",), precise=True),
        Stored(f"{name}.ssm_out.weight", (width, shape.values), ("operator.o_proj.weight",)),
    ]
    return half.stored(tensors)


def _short_conv(half: Half, name: str, width: int) -> list[Stored]:
    shape = half.shape
    return half.stored(
        [
            norm(f"{name}.attn_norm.weight", width),
            Stored(
                f"{name}.shortconv.conv.weight", (width, shape.conv), ("operator.conv.weight",), precise=True
            ),
            Stored(f"{name}.shortconv.in_proj.weight", (3 * width, width), ("operator.in_proj.weight",)),
            Stored(f"{name}.shortconv.out_proj.weight", (width, width), ("operator.out_proj.weight",)),
        ]
    )
