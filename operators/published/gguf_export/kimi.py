"""GGUF models with Kimi Delta Attention: kimi-linear of llama.cpp, without experts."""

from torch import Tensor

from operators.architecture import Architecture
from operators.published.gguf_export.blocks import (
    OWN_HEAD,
    Half,
    blocks,
    norm,
    outside,
    require,
    require_one_shape,
    shapes_of,
)
from operators.published.gguf_export.outline import Misfit, Outline, Stored
from operators.published.gguf_export.transformers import common_keys, swiglu

LATENT = 32
"""Every size of the latent attention, which only holds zeros: quantized files want a multiple of 32."""
SIGMOID = 2  # how experts would be chosen, which the file has to say
SHORT_KEYS = (
    "llama.cpp adds nothing to the length of queries and keys of kda, where 1e-6 is added here to its "
    "square: log-probabilities may differ by some 1e-4"
)


def kimi_linear(architecture: Architecture) -> Outline:
    """Kimi Delta Attention, each followed by SwiGLU. Raises Misfit."""
    for operator in ("kda", "swiglu"):
        require_one_shape(architecture, operator)
    require(architecture, "kda", "negative_eigenvalues", False)
    numbered = shapes_of(architecture, "kda")
    if not numbered:
        raise Misfit("layers: expected a kda, got none", layer=0)
    number, shape = numbered[0]
    if shape.value_dim != shape.key_dim:
        raise Misfit(
            f"layers.{number}.shape.value_dim: expected {shape.key_dim}, as key_dim, got {shape.value_dim}",
            layer=number,
        )
    pairs, width = blocks(architecture), architecture.width
    feedforward = pairs[0].feedforward.layer
    keys = common_keys(architecture, len(pairs) + 1) | {
        "attention.head_count": shape.heads,
        # A block without them is KDA to llama.cpp.
        "attention.head_count_kv": [*(0 for _ in pairs), 1],
        "feed_forward_length": pairs[0].feedforward.shape.hidden,
        "ssm.conv_kernel": shape.conv,
        "kda.head_dim": shape.key_dim,
        "attention.kv_lora_rank": LATENT,
        "attention.key_length": 2 * LATENT,
        "attention.value_length": LATENT,
        "attention.key_length_mla": 2 * LATENT,
        "attention.value_length_mla": LATENT,
        "rope.dimension_count": LATENT,
        "leading_dense_block_count": len(pairs) + 1,
        "expert_feed_forward_length": pairs[0].feedforward.shape.hidden,
        "expert_shared_count": 0,
        "expert_gating_func": SIGMOID,
    }
    tensors = outside(architecture, tied=False)
    for place, block in enumerate(pairs):
        tensors += _kda(block.mixer, f"blk.{place}", width)
        tensors += swiglu(block.feedforward, f"blk.{place}", width)
    # llama.cpp needs both kinds of layers in a hybrid, and latent attention is no operator of ours.
    last = f"blk.{len(pairs)}"
    tensors += _latent(last, shape.heads, width)
    tensors += swiglu(Half(feedforward, None), last, width)
    head = (OWN_HEAD.format("kimi-linear"),) if architecture.tied_embeddings else ()
    return Outline("kimi-linear", keys, tuple(tensors), (SHORT_KEYS, *head))


def _kda(half: Half, name: str, width: int) -> list[Stored]:
    shape = half.shape
    rank, inner, heads = shape.value_dim, shape.keys, shape.heads

    def rates(values: Tensor) -> Tensor:
        return -values.exp()[:, None]

    def matrix(theirs: str, ours: str, rows: int, columns: int) -> Stored:
        return Stored(f"{name}.{theirs}.weight", (rows, columns), (f"operator.{ours}.weight",))

    def convolution(place: int, letter: str) -> Stored:
        def part(values: Tensor) -> Tensor:
            return values[place * inner : (place + 1) * inner, None]

        return Stored(
            f"{name}.ssm_conv1d_{letter}.weight",
            (inner, 1, shape.conv),
            ("operator.conv.weight",),
            part,
            precise=True,
        )

    return half.stored(
        [
            norm(f"{name}.attn_norm.weight", width),
            *(convolution(place, letter) for place, letter in enumerate("qkv")),
            *(matrix(f"attn_{letter}", f"{letter}_proj", inner, width) for letter in "qkv"),
            matrix("ssm_f_a", "decay_down_proj", rank, width),
            matrix("ssm_f_b", "decay_up_proj", inner, rank),
            matrix("ssm_beta", "b_proj", heads, width),
            Stored(f"{name}.ssm_a", (heads, 1), ("operator.A_log",), rates, precise=True),
            Stored(f"{name}.ssm_dt.bias", (inner,), ("operator.dt_bias",), precise=True),
            matrix("ssm_g_a", "gate_down_proj", rank, width),
            matrix("ssm_g_b", "gate_up_proj", inner, rank),
            Stored(f"{name}.ssm_norm.weight", (rank,), ("operator.o_norm.weight",), precise=True),
            matrix("attn_output", "o_proj", width, inner),
        ]
    )


def _latent(name: str, heads: int, width: int) -> list[Stored]:
    """Latent attention of zeros."""
    size = LATENT
    return [
        Stored(f"{name}.attn_norm.weight", (width,), fill=1.0, precise=True),
        Stored(f"{name}.attn_q.weight", (2 * heads * size, width)),
        Stored(f"{name}.attn_kv_a_mqa.weight", (2 * size, width)),
        Stored(f"{name}.attn_kv_a_norm.weight", (size,), fill=1.0, precise=True),
        Stored(f"{name}.attn_k_b.weight", (heads, size, size)),
        Stored(f"{name}.attn_v_b.weight", (heads, size, size)),
        Stored(f"{name}.attn_output.weight", (width, heads * size)),
    ]
