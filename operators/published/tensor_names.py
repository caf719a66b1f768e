"""The names of published tensors: the parts that families share, and what an adapter of a family returns."""

from collections.abc import Iterable, Sequence
from typing import Any

# Our parameter -> the published tensors that make it, one under the other along the first dimension.
Names = dict[str, tuple[str, ...]]

# Fields of the architecture, its layers, its tensors and the renames.
Family = tuple[dict[str, Any], list[dict[str, Any]], Names, Sequence[tuple[str, str]]]

SWIGLU = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
ATTENTION = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")
QK_NORM = ("q_norm.weight", "k_norm.weight")
QKV_BIAS = ("q_proj.bias", "k_proj.bias", "v_proj.bias")
MAMBA2 = ("in_proj.weight", "A_log", "dt_bias", "D", "norm.weight", "out_proj.weight")
GATED_DELTANET = (
    *ATTENTION,
    "a_proj.weight",
    "b_proj.weight",
    "g_proj.weight",
    "A_log",
    "dt_bias",
    "o_norm.weight",
)


def layer_names(ours: int, theirs: str, inside: Iterable[str], norm: str) -> Names:
    """The tensors of one of our layers.

    ours: its number.
    theirs: prefix of its operator's tensors.
    inside: names of the operator's parameters, which both sides share.
    norm: the tensor of its normalization.
    """
    operator = {f"layers.{ours}.operator.{name}": (f"{theirs}.{name}",) for name in inside}
    return {f"layers.{ours}.norm.weight": (norm,), **operator}


def outside_names(embedding: str, norm: str) -> Names:
    """The tensors outside of the layers, with an untied head."""
    return {"embedding.weight": (embedding,), "norm.weight": (norm,), "head.weight": ("lm_head.weight",)}
