"""GGUF models of attention beside another mixer of a short memory: qwen35 and lfm2 of llama.cpp."""

from typing import Any

import torch
from torch import Tensor

from operators.architecture import Architecture
from operators.library.gated_deltanet import HEAD_NORM_EPS
from operators.published.gguf_export.blocks import (
    Half,
    blocks,
    norm,
    outside,
    require,
    require_one_shape,
    require_plain,
)
from operators.published.gguf_export.outline import Misfit, Outline, Stored
from operators.published.gguf_export.transformers import (
    attention,
    attention_keys,
    common_keys,
    require_whole_width,
    rope_of,
    swiglu,
)


def qwen35(architecture: Architecture) -> Outline:
    """Gated DeltaNet or attention, each followed by SwiGLU. Raises Misfit."""
    _require(architecture, "gated_deltanet")
    require(architecture, "gated_deltanet", "negative_eigenvalues", False)
    for number, layer in enumerate(architecture.layers):
        if layer.operator != "gated_deltanet":
            continue
        if layer.shape.key_dim != layer.shape.value_dim:
            raise Misfit(
                f"layers.{number}.shape.value_dim: expected {layer.shape.key_dim}, as key_dim, in a qwen35 "
                f"of llama.cpp, got {layer.shape.value_dim}",
                layer=number,
            )
        if architecture.norm_eps != HEAD_NORM_EPS:
            raise Misfit(
                f"norm_eps: expected {HEAD_NORM_EPS:g}, which layers.{number} (gated_deltanet) has within, "
                f"got {architecture.norm_eps:g}",
                layer=number,
            )
    tensors, pairs = outside(architecture), blocks(architecture)
    shapes = {layer.operator: layer.shape for layer in reversed(architecture.layers)}
    own, heads = shapes["gated_deltanet"], shapes["attention"]
    keys = common_keys(architecture, len(pairs)) | attention_keys(heads.head_dim, rope_of(architecture))
    keys |= {
        "attention.head_count": heads.heads,
        "attention.head_count_kv": heads.kv_heads,
        "feed_forward_length": shapes["swiglu"].hidden,
        "ssm.conv_kernel": own.conv,
        "ssm.inner_size": own.values,
        "ssm.state_size": own.key_dim,
        "ssm.time_step_rank": own.heads,
        "ssm.group_count": own.heads,
        "rope.dimension_sections": _sections(heads.head_dim // 2),
        "attention.recurrent_layers": [block.mixer.layer.operator != "attention" for block in pairs],
    }
    for number, block in enumerate(pairs):
        name, width = f"blk.{number}", architecture.width
        tensors += (
            _half_open(attention(block.mixer, name, width, permuted=False), block.mixer.shape)
            if block.mixer.layer.operator == "attention"
            else _gated_deltanet(block.mixer, name, width)
        )
        tensors += swiglu(block.feedforward, name, width, normalization="post_attention_norm")
    return Outline("qwen35", keys, tuple(tensors))


def lfm2(architecture: Architecture) -> Outline:
    """Short convolutions or attention, each followed by SwiGLU. Raises Misfit."""
    _require(architecture, "short_conv")
    require(architecture, "short_conv", "channels", architecture.width, ", the width,")
    require_whole_width(architecture)
    # This model of llama.cpp has the norm of the output under the name of another one.
    tensors, pairs = outside(architecture, "token_embd_norm"), blocks(architecture)
    shapes = {layer.operator: layer.shape for layer in reversed(architecture.layers)}
    heads = shapes["attention"]
    attends = [block.mixer.layer.operator == "attention" for block in pairs]
    keys = common_keys(architecture, len(pairs)) | attention_keys(heads.head_dim, rope_of(architecture))
    keys |= {
        "attention.head_count": heads.heads,
        "attention.head_count_kv": [heads.kv_heads if yes else 0 for yes in attends],
        "feed_forward_length": shapes["swiglu"].hidden,
        "shortconv.l_cache": shapes["short_conv"].conv,
    }
    for number, (block, yes) in enumerate(zip(pairs, attends, strict=True)):
        name, width = f"blk.{number}", architecture.width
        tensors += (
            attention(block.mixer, name, width, permuted=False)
            if yes
            else _short_conv(block.mixer, name, width)
        )
        tensors += swiglu(block.feedforward, name, width)
    return Outline("lfm2", keys, tuple(tensors))


def _require(architecture: Architecture, recurrent: str) -> None:
    """Raises Misfit unless both mixers and SwiGLU are there, each of one shape."""
    operators = (recurrent, "attention", "swiglu")
    require_plain(architecture, operators)
    require(architecture, "attention", "qk_norm", "head", f" beside {recurrent}")
    require(architecture, "attention", "qkv_bias", False)
    require(architecture, "attention", "window", None)
    for operator in operators:
        require_one_shape(architecture, operator)
        if operator not in {layer.operator for layer in architecture.layers}:
            raise Misfit(f"layers: expected {operator} beside {recurrent}, got none", layer=0)
    if rope_of(architecture).scaling is not None:
        raise Misfit(f"rope.scaling: expected none beside {recurrent}, got llama3", layer=0)


def _sections(pairs: int) -> list[int]:
    """How many of a head's rotated pairs follow each of the positions that an image has, in turns.

    A text has three equal positions and a fourth one of 0, which no pair may follow.
    """
    return [(pairs + 2) // 3, (pairs + 1) // 3, pairs // 3, 0]


def _half_open(tensors: list[Stored], shape: Any) -> list[Stored]:
    """The same attention with a gate that is always one half, which twice the output projection undoes."""

    def gated(queries: Tensor) -> Tensor:
        by_head = queries.unflatten(0, (shape.heads, -1))
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
        Stored(
            f"{name}.ssm_conv1d.weight", (channels, shape.conv), ("operator.conv.weight",), precise=True
        ),
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
