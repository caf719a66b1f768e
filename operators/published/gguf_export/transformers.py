"""GGUF models of attention and SwiGLU: llama, qwen2 and qwen3 of llama.cpp."""

from functools import partial

import torch

from operators.architecture import Architecture
from operators.layers.rope import frequencies
from operators.published.gguf_export.blocks import (
    Half,
    blocks,
    neighbours,
    norm,
    outside,
    require,
    require_one_shape,
    shapes_of,
)
from operators.published.gguf_export.outline import Misfit, Outline, Stored, Value, unchanged
from operators.rope import Rope

ROPE_FREQUENCIES = "rope_freqs.weight"
# Frequencies divided by this turn a head by less than float32 can tell, at every position.
NO_ROTATION = 1e30


def llama(architecture: Architecture) -> Outline:
    """Attention without norms and biases. Raises Misfit."""
    require(architecture, "attention", "qk_norm", "none")
    require(architecture, "attention", "qkv_bias", False)
    return _transformer(architecture, "llama")


def llama_with_biases(architecture: Architecture) -> Outline:
    """The same with biases, which llama.cpp reads where a file has them. Raises Misfit."""
    require(architecture, "attention", "qk_norm", "none")
    require(architecture, "attention", "qkv_bias", True)
    return _transformer(architecture, "llama")


def qwen2(architecture: Architecture) -> Outline:
    """Attention with biases, whose heads are together as wide as the model. Raises Misfit."""
    require(architecture, "attention", "qk_norm", "none")
    require(architecture, "attention", "qkv_bias", True)
    require_whole_width(architecture)
    require_plain_rope(architecture)
    return _transformer(architecture, "qwen2")


def qwen3(architecture: Architecture) -> Outline:
    """Attention that normalizes queries and keys by head. Raises Misfit."""
    require(architecture, "attention", "qk_norm", "head")
    require_plain_rope(architecture)
    return _transformer(architecture, "qwen3")


def require_whole_width(architecture: Architecture) -> None:
    """Raises Misfit unless the heads of attention are together as wide as the model."""
    for number, shape in shapes_of(architecture, "attention"):
        if shape.heads * shape.head_dim != architecture.width:
            raise Misfit(
                f"layers.{number}.shape.heads: expected heads x head_dim to be the width, "
                f"{architecture.width}, got {shape.heads} x {shape.head_dim}",
                layer=number,
            )


def _transformer(architecture: Architecture, family: str) -> Outline:
    require(architecture, "attention", "window", None)
    for operator in ("attention", "swiglu"):
        require_one_shape(architecture, operator)
    tensors, pairs = outside(architecture), blocks(architecture)
    shape = pairs[0].mixer.shape
    keys = common_keys(architecture, len(pairs)) | attention_keys(shape.head_dim, architecture.rope)
    keys |= {
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "feed_forward_length": pairs[0].feedforward.shape.hidden,
    }
    if family == "llama":
        tensors += rope_frequencies(architecture, shape.head_dim)
    for number, block in enumerate(pairs):
        name = f"blk.{number}"
        tensors += attention(block.mixer, name, architecture.width, permuted=family == "llama")
        tensors += swiglu(block.feedforward, name, architecture.width)
    return Outline(family, keys, tuple(tensors))


def require_plain_rope(architecture: Architecture) -> None:
    """Raises Misfit unless queries and keys are rotated, and no scaling stretches the rotation."""
    number, _ = shapes_of(architecture, "attention")[0]
    where, depth = f"for layers.{number} (attention)", architecture.depth
    if architecture.rope is None:
        raise Misfit(f"rope: expected rotary positions {where}, got null", layer=depth)
    if architecture.rope.scaling is not None:
        raise Misfit(f"rope.scaling: expected null {where}, got llama3", layer=depth)


def common_keys(architecture: Architecture, count: int) -> dict[str, Value]:
    """The metadata that every model has."""
    return {
        "block_count": count,
        "embedding_length": architecture.width,
        "vocab_size": architecture.vocabulary,
        "attention.layer_norm_rms_epsilon": architecture.norm_eps,
    }


def attention_keys(head_dim: int, rope: Rope | None) -> dict[str, Value]:
    """The metadata on heads of attention and their rotation."""
    keys: dict[str, Value] = {"attention.key_length": head_dim, "attention.value_length": head_dim}
    keys["rope.dimension_count"] = head_dim
    return keys if rope is None else keys | {"rope.freq_base": rope.theta}


def rope_frequencies(architecture: Architecture, head_dim: int) -> list[Stored]:
    """What llama.cpp divides the frequencies by: for a scaling as of Llama 3, and to rotate nothing."""
    rope, half = architecture.rope, head_dim // 2
    if rope is None:
        return [Stored(ROPE_FREQUENCIES, (half,), fill=NO_ROTATION, precise=True)]
    if rope.scaling is None:
        return []
    plain, stretched = (frequencies(rope.theta, s, half, torch.device("cpu")) for s in (None, rope.scaling))
    factors = (plain.double() / stretched.double()).tolist()
    return [Stored(ROPE_FREQUENCIES, (half,), fill=tuple(factors), precise=True)]


def attention(half: Half, name: str, width: int, *, permuted: bool) -> list[Stored]:
    """The tensors of a layer of attention.

    name: of the block, as blk.0.
    permuted: whether llama.cpp rotates neighbouring rows of a head.
    """
    shape = half.shape
    tensors = [norm(f"{name}.attn_norm.weight", width)]
    for letter, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
        change = partial(neighbours, heads) if permuted and letter != "v" else unchanged
        rows, theirs, ours = heads * shape.head_dim, f"{name}.attn_{letter}", f"operator.{letter}"
        tensors.append(Stored(f"{theirs}.weight", (rows, width), (f"{ours}_proj.weight",), change))
        if shape.qkv_bias:
            tensors.append(Stored(f"{theirs}.bias", (rows,), (f"{ours}_proj.bias",), change, precise=True))
        if shape.qk_norm == "head" and letter != "v":
            size = (shape.head_dim,)
            tensors.append(Stored(f"{theirs}_norm.weight", size, (f"{ours}_norm.weight",), precise=True))
    columns = shape.heads * shape.head_dim
    tensors.append(Stored(f"{name}.attn_output.weight", (width, columns), ("operator.o_proj.weight",)))
    return half.stored(tensors)


def swiglu(half: Half, name: str, width: int, *, normalization: str = "ffn_norm") -> list[Stored]:
    """The tensors of a SwiGLU.

    name: of the block.
    normalization: name of the normalization before it.
    """
    hidden = half.shape.hidden
    shapes = {"gate": (hidden, width), "up": (hidden, width), "down": (width, hidden)}
    return half.stored(
        [
            norm(f"{name}.{normalization}.weight", width),
            *(
                Stored(f"{name}.ffn_{part}.weight", shape, (f"operator.{part}_proj.weight",))
                for part, shape in shapes.items()
            ),
        ]
    )
