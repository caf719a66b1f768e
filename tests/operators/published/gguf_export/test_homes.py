"""Architectures that no GGUF model of llama.cpp holds: the reason is one line that names the layer."""

from typing import Any

import pytest

from operators.base.errors import ArchitectureError
from operators.parameter_shapes import parameter_shapes
from operators.published.gguf_export.homes import outline
from tests.helpers.gguf_members import (
    ATTENTION,
    DELTANET,
    KDA,
    MEMBERS,
    NORMED,
    RELU2,
    RWKV7,
    SHORT_CONV,
    STRETCHED,
)
from tests.helpers.published_models import FEEDFORWARD, MAMBA2, architecture

A, F, M, R, N, D, C, W, K = ATTENTION, FEEDFORWARD, MAMBA2, RELU2, NORMED, DELTANET, SHORT_CONV, RWKV7, KDA
WIDE = {"width": 128}


def but(layer: dict[str, Any], **shape: Any) -> dict[str, Any]:
    return {**layer, "shape": {**layer["shape"], **shape}}


@pytest.mark.parametrize(
    ("layers", "fields", "message"),
    [
        (
            [A, F, "l"],
            {},
            "layers.2: expected an operator that a GGUF model has beside attention and swiglu, got",
        ),
        (["gla"], {}, "layers.0: expected an operator that a GGUF model has, got gla"),
        ([but(K, value_dim=8), F], {}, "layers.0.shape.value_dim: expected 16, as key_dim, got 8"),
        ([but(K, negative_eigenvalues=True)], {}, "layers.0.shape.negative_eigenvalues: expected false"),
        ([W, R], WIDE, "layers.1: expected an operator that a GGUF model has beside rwkv7, got relu2"),
        ([but(W, heads=4, head_dim=32), F], WIDE, "layers.0.shape.head_dim: expected 64, got 32"),
        ([but(W, heads=1), F], WIDE, "layers.0.shape.heads: expected heads x head_dim to be the width, 128"),
        ([W, F, but(W, a_rank=32)], WIDE, "layers.2.shape.a_rank: expected 64, as in layers.0, got 32"),
        ([M, F, D], {}, "layers.2: expected an operator that a GGUF model has beside mamba2 and swiglu, got"),
        (
            [A, R, F],
            {},
            "layers.2: expected an operator that a GGUF model has beside attention and relu2, got",
        ),
        ([A, {**F, "norm": "layernorm"}], {}, "layers.1.norm: expected rmsnorm, got layernorm"),
        ([A, {**F, "norm_position": "after"}], {}, "layers.1.norm_position: expected before, got after"),
        ([A, F], {"meta_tokens": 4}, "meta_tokens: expected 0 for a GGUF model"),
        ([A, F, but(A, window=9), F], {}, "layers.2.shape.window: expected null, got 9"),
        ([A, F, but(A, qk_norm="head")], {}, "layers.2.shape.qk_norm: expected none, got head"),
        ([but(A, qk_norm="full"), F], {}, "layers.0.shape.qk_norm: expected none, got full"),
        ([A, F, but(A, qkv_bias=True)], {}, "layers.2.shape.qkv_bias: expected false, got true"),
        ([A, F, but(A, heads=2)], {}, "layers.2.shape.heads: expected 4, as in layers.0, got 2"),
        ([A, F, A, but(F, hidden=64)], {}, "layers.3.shape.hidden: expected 80, as in layers.1, got 64"),
        ([N, F], {"rope": STRETCHED}, "rope.scaling: expected null for layers.0 (attention), got llama3"),
        ([N, F], {"rope": None}, "rope: expected rotary positions for layers.0 (attention), got null"),
        ([M, but(M, state=8)], {}, "layers.1.shape.state: expected 20, as in layers.0, got 8"),
        ([M, but(M, heads=4), F], {}, "layers.1.shape.heads: expected 6, as in layers.0, got 4"),
        (
            [but(M, heads=4), F],
            {},
            "layers.0.shape.heads: expected heads x head_dim to be twice the width, 96",
        ),
        ([M, R, A], {}, "layers.2: expected attention without rotary positions (rope: null) beside relu2"),
        ([M, F, A, but(A, head_dim=8)], {}, "layers.3.shape.head_dim: expected 12, as in layers.2, got 8"),
        ([D, F, A], {}, "layers.2.shape.qk_norm: expected head beside gated_deltanet, got none"),
        ([but(D, value_dim=32), F], {}, "layers.0.shape.value_dim: expected 16, as key_dim, got 32"),
        ([D, F], {"norm_eps": 1e-6}, "norm_eps: expected 1e-05, which layers.0 (gated_deltanet) has within"),
        (
            [D, F, but(D, negative_eigenvalues=True)],
            {},
            "layers.2.shape.negative_eigenvalues: expected false, got true",
        ),
        (
            [C, F, but(N, head_dim=16)],
            {},
            "layers.2.shape.heads: expected heads x head_dim to be the width, 48",
        ),
        ([but(C, channels=40), F], {}, "layers.0.shape.channels: expected 48, the width, got 40"),
        ([A] * 513, {}, "layers: expected at most 512 blocks in a GGUF model, got 513"),
    ],
)
def test_the_reason_is_one_line_that_names_the_layer(
    layers: list[Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArchitectureError) as error:
        outline(architecture(layers, **fields))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_weight_is_in_the_file_once(member: str) -> None:
    """Our parameters against the tensors of the file. A head that has to be there is a second table."""
    family, member_of = MEMBERS[member]
    parts = [part for tensor in outline(member_of).tensors for part in tensor.parts]
    names = parameter_shapes(member_of).keys()
    second = member_of.tied_embeddings and (member_of.normalized_head or family in ("arwkv7", "kimi-linear"))
    more = ["embedding.weight"] if second else []
    if family == "kimi-linear":  # a third of the convolution each
        more += 2 * [name for name in names if name.endswith("conv.weight")]
    assert sorted(parts) == sorted([*names, *more])
