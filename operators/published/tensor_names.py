"""The names of published tensors: the parts that families share, and what an adapter of a family returns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operators.published.forms import CONV, Form

# Our parameter -> the published tensors that make it, one under the other along the first dimension.
# Parameters with the same published tensors lie one under the other in them.
Names = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Zeros:
    """A published tensor of zeros that no parameter of ours makes.

    shape: of the tensor.
    key: of the config.json that tells that it is there.
    """

    shape: tuple[int, ...]
    key: str


@dataclass(frozen=True)
class Family:
    """What the adapter of a family reads from a config.json.

    fields: of the architecture.
    layers: in order, as plain data.
    names: the published tensors of each of our parameters.
    renames: (old, new) spellings in names of tensors, to be applied in order; `names` has the new ones.
    forms: the parameters that are published in another form.
    zeros: published tensors of zeros that no parameter of ours makes.
    woven: published tensors in which the rows of our parameters do not lie one under the other -> the form of
        all of them together.
    remark: a line for the user; empty for none.
    """

    fields: Mapping[str, Any]
    layers: Sequence[Mapping[str, Any]]
    names: Names
    renames: Sequence[tuple[str, str]] = ()
    forms: Mapping[str, Form] = field(default_factory=dict)
    zeros: Mapping[str, Zeros] = field(default_factory=dict)
    woven: Mapping[str, Form] = field(default_factory=dict)
    remark: str = ""


SWIGLU = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
RELU2 = ("up_proj.weight", "down_proj.weight")
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


def layer_names(ours: int, theirs: str, inside: Iterable[str] | Mapping[str, str], norm: str) -> Names:
    """The tensors of one of our layers.

    ours: its number.
    theirs: prefix of its operator's tensors.
    inside: names of the operator's parameters: those that both sides share, or ours -> theirs.
    norm: the tensor of its normalization.
    """
    pairs = inside if isinstance(inside, Mapping) else {name: name for name in inside}
    operator = {f"layers.{ours}.operator.{name}": (f"{theirs}.{other}",) for name, other in pairs.items()}
    return {f"layers.{ours}.norm.weight": (norm,), **operator}


def mamba2_names(ours: int, theirs: str, norm: str) -> tuple[Names, dict[str, Form]]:
    """The tensors of a Mamba2 layer, and their forms; see `layer_names`."""
    conv = {f"conv.{name}": f"conv1d.{name}" for name in ("weight", "bias")}
    names = layer_names(ours, theirs, {**{name: name for name in MAMBA2}, **conv}, norm)
    return names, {f"layers.{ours}.operator.conv.weight": CONV}


def outside_names(embedding: str, norm: str) -> Names:
    """The tensors outside of the layers, with an untied head."""
    return {"embedding.weight": (embedding,), "norm.weight": (norm,), "head.weight": ("lm_head.weight",)}
