"""GGUF models with RWKV-7 layers: arwkv7 of llama.cpp, which has norms and SwiGLU as we have.

llama.cpp's `rwkv7` cannot be written: it normalizes the embedding, which nothing undoes.
"""

from torch import Tensor

from operators.architecture import Architecture
from operators.library.rwkv7 import HEAD_NORM_EPS
from operators.published.gguf_export.blocks import (
    OWN_HEAD,
    Half,
    blocks,
    norm,
    outside,
    require_one_shape,
    shapes_of,
)
from operators.published.gguf_export.outline import Misfit, Outline, Stored
from operators.published.gguf_export.transformers import common_keys, swiglu

# llama.cpp has the eps of a head's norm as a fixed number, 64 times HEAD_NORM_EPS.
HEAD_DIM = round(64e-5 / HEAD_NORM_EPS)
# The share of the first layer's values in those of another is the sigmoid of this: 2e-35, which adds nothing.
NO_FIRST_VALUES = -80.0
VALUE_RANK = 1  # of the projections for that share, whose weights are zeros


def arwkv7(architecture: Architecture) -> Outline:
    """RWKV-7, each followed by SwiGLU. Raises Misfit."""
    for operator in ("rwkv7", "swiglu"):
        require_one_shape(architecture, operator)
    numbered = shapes_of(architecture, "rwkv7")
    if not numbered:
        raise Misfit("layers: expected an rwkv7, got none", layer=0)
    for number, each in numbered:
        if each.head_dim != HEAD_DIM:
            raise Misfit(
                f"layers.{number}.shape.head_dim: expected {HEAD_DIM}, got {each.head_dim}", layer=number
            )
        if each.inner != architecture.width:
            raise Misfit(
                f"layers.{number}.shape.heads: expected heads x head_dim to be the width, "
                f"{architecture.width}, got {each.heads} x {each.head_dim}",
                layer=number,
            )
    shape, pairs = numbered[0][1], blocks(architecture)
    keys = common_keys(architecture, len(pairs)) | {
        "attention.head_count": 0,
        "feed_forward_length": pairs[0].feedforward.shape.hidden,
        "wkv.head_size": shape.head_dim,
        "attention.decay_lora_rank": shape.decay_rank,
        "attention.iclr_lora_rank": shape.a_rank,
        "attention.gate_lora_rank": shape.gate_rank,
        "attention.value_residual_mix_lora_rank": VALUE_RANK,
        "token_shift_count": 1,
    }
    tensors = outside(architecture, tied=False)
    for number, block in enumerate(pairs):
        tensors += _rwkv7(block.mixer, number, architecture.width)
        tensors += swiglu(block.feedforward, f"blk.{number}", architecture.width)
    head = (OWN_HEAD.format("arwkv7"),) if architecture.tied_embeddings else ()
    return Outline("arwkv7", keys, tuple(tensors), head)


def _rwkv7(half: Half, number: int, width: int) -> list[Stored]:
    shape, name = half.shape, f"blk.{number}"
    decay, rate, gate = shape.decay_rank, shape.a_rank, shape.gate_rank
    values = rate if number == 0 else VALUE_RANK  # of a layer that is not read, but has to be there

    def mixed(shares: Tensor) -> Tensor:
        return shares[:, None, None]

    def flat(values: Tensor) -> Tensor:
        return values.flatten()

    def vector(theirs: str, *ours: str, fill: float = 0.0) -> Stored:
        parts = tuple(f"operator.{part}" for part in ours)
        return Stored(f"{name}.time_mix_{theirs}", (width,), parts, flat, fill=fill, precise=True)

    def matrix(theirs: str, ours: str, rows: int, columns: int, *, precise: bool = False) -> Stored:
        parts = (f"operator.{ours}.weight",) if ours else ()
        return Stored(f"{name}.time_mix_{theirs}.weight", (rows, columns), parts, precise=precise)

    return half.stored(
        [
            norm(f"{name}.attn_norm.weight", width),
            Stored(
                f"{name}.time_mix_lerp_fused.weight",
                (6, 1, 1, width),
                ("operator.mix",),
                mixed,
                precise=True,
            ),
            # The decay in full, as llama.cpp's converter has it: its errors add up along a text.
            vector("w0.weight", "decay_up_proj.bias"),
            matrix("w1", "decay_down_proj", decay, width, precise=True),
            matrix("w2", "decay_up_proj", width, decay, precise=True),
            vector("a0.weight", "a_up_proj.bias"),
            matrix("a1", "a_down_proj", rate, width),
            matrix("a2", "a_up_proj", width, rate),
            vector("v0.weight", fill=NO_FIRST_VALUES),
            matrix("v1", "", values, width, precise=True),
            matrix("v2", "", width, values, precise=True),
            matrix("g1", "gate_down_proj", gate, width),
            matrix("g2", "gate_up_proj", width, gate),
            vector("k_k.weight", "k_k"),
            vector("k_a.weight", "k_a"),
            vector("r_k.weight", "r_k"),
            matrix("key", "k_proj", width, width),
            matrix("value", "v_proj", width, width),
            matrix("receptance", "r_proj", width, width),
            vector("ln.weight", "o_norm.weight"),
            vector("ln.bias", "o_norm.bias"),
            matrix("output", "o_proj", width, width),
        ]
    )
