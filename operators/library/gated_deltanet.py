"""Gated DeltaNet: the delta rule with a decay per head and an output gate (Yang et al. 2024, arXiv 2412.06464), as in OLMo Hybrid."""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from operators.architecture import Architecture
from operators.delta_rule import REFERENCE, delta_rule_flops
from operators.normalization import RMSNorm, l2_normalized
from operators.operator import Backend, Operator, OperatorModule, Shape, State, TensorSpec
from operators.recurrence import Recurrence, initial_dt_bias
from operators.short_convolution import ShortConvolution, conv_parameters, conv_spec

# Published models keep this value inside the operator, whatever the layers' normalizations use.
HEAD_NORM_EPS = 1e-5


class GatedDeltaNetShape(Shape):
    """heads of key_dim for queries and keys and of value_dim for values, after a convolution over `conv` tokens.

    negative_eigenvalues: beta in (0, 2) instead of (0, 1), so that the state may also be reflected (Grazzi et al. 2024, arXiv 2411.12537).
    """

    heads: Annotated[int, Field(ge=1)]
    key_dim: Annotated[int, Field(ge=1)]
    value_dim: Annotated[int, Field(ge=1)]
    conv: Annotated[int, Field(ge=2)] = 4
    negative_eigenvalues: bool = False

    @classmethod
    def make(
        cls,
        width: int,
        *,
        head_dim: int = 64,
        expand: float = 0.75,
        value_ratio: float = 2.0,
        conv: int = 4,
        negative_eigenvalues: bool = False,
    ) -> Self:
        return cls(
            heads=max(1, round(expand * width / head_dim)),
            key_dim=head_dim,
            value_dim=max(1, round(value_ratio * head_dim)),
            conv=conv,
            negative_eigenvalues=negative_eigenvalues,
        )

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "head_dim": self.key_dim,
            "expand": self.keys / width,
            "value_ratio": self.value_dim / self.key_dim,
            "conv": self.conv,
            "negative_eigenvalues": self.negative_eigenvalues,
        }

    @property
    def keys(self) -> int:
        return self.heads * self.key_dim

    @property
    def values(self) -> int:
        return self.heads * self.value_dim


class GatedDeltaNet(OperatorModule):
    """State: `recurrent` [B, H, K, V] (float32) and `conv` [B, H·(2K + V), conv - 1] for q, k and v side by side."""

    reads: ClassVar = ("q_proj", "k_proj", "v_proj", "a_proj", "b_proj", "g_proj")
    writes: ClassVar = ("o_proj",)

    def __init__(self, architecture: Architecture, shape: GatedDeltaNetShape, delta_rule: Recurrence) -> None:
        super().__init__()
        self.shape, self.delta_rule = shape, delta_rule
        width = architecture.width
        self.q_proj = nn.Linear(width, shape.keys, bias=False)
        self.k_proj = nn.Linear(width, shape.keys, bias=False)
        self.v_proj = nn.Linear(width, shape.values, bias=False)
        self.a_proj = nn.Linear(width, shape.heads, bias=False)
        self.b_proj = nn.Linear(width, shape.heads, bias=False)
        self.g_proj = nn.Linear(width, shape.values, bias=False)
        self.conv = ShortConvolution(2 * shape.keys + shape.values, shape.conv)
        # Uniform in (0, 16]: rand() may be 0, whose logarithm would switch the decay off for ever.
        self.A_log = nn.Parameter(torch.log(16 * (1 - torch.rand(shape.heads))))
        self.dt_bias = nn.Parameter(initial_dt_bias(shape.heads))
        self.o_norm = RMSNorm(shape.value_dim, eps=HEAD_NORM_EPS)
        self.o_proj = nn.Linear(shape.values, width, bias=False)

    def _project(self, x: Tensor) -> Tensor:
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], -1)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """qkv […, H·(2K + V)] -> q and k […, H, K] of unit length, and v […, H, V]."""
        parts = qkv.split([self.shape.keys, self.shape.keys, self.shape.values], -1)
        q, k, v = (part.unflatten(-1, (self.shape.heads, -1)) for part in parts)
        return l2_normalized(q), l2_normalized(k), v

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x […, W] -> beta and log decay […, H]; the decay in float32."""
        beta = self.b_proj(x).sigmoid()
        if self.shape.negative_eigenvalues:
            beta = 2 * beta
        return beta, -self.A_log.float().exp() * F.softplus(self.a_proj(x).float() + self.dt_bias.float())

    def _output(self, x: Tensor, out: Tensor) -> Tensor:
        gate = F.silu(self.g_proj(x))
        y: Tensor = self.o_proj(self.o_norm(out.to(x.dtype)).flatten(-2) * gate)
        return y

    def forward(self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0) -> Tensor:
        q, k, v = self._heads(self.conv(self._project(x), state["conv"] if state else None))
        out, final = self.delta_rule.scan(q, k, v, *self._gates(x), state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
        return self._output(x, out)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        q, k, v = self._heads(self.conv.step(self._project(x), state["conv"]))
        return self._output(x, self.delta_rule.step(q, k, v, *self._gates(x), state["recurrent"]))


def state_spec(shape: GatedDeltaNetShape, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    return {
        "recurrent": TensorSpec((batch, shape.heads, shape.key_dim, shape.value_dim), torch.float32),
        "conv": conv_spec(batch, 2 * shape.keys + shape.values, shape.conv, dtype),
    }


def _matrix_elements(width: int, shape: GatedDeltaNetShape) -> int:
    return width * (2 * shape.keys + 3 * shape.values + 2 * shape.heads)


def parameters(width: int, shape: GatedDeltaNetShape) -> int:
    conv = conv_parameters(2 * shape.keys + shape.values, shape.conv)
    return _matrix_elements(width, shape) + conv + 2 * shape.heads + shape.value_dim


def flops(width: int, shape: GatedDeltaNetShape, context: int) -> int:
    matrices = 2 * _matrix_elements(width, shape) + 2 * (2 * shape.keys + shape.values) * shape.conv
    return matrices + delta_rule_flops(shape.heads, shape.key_dim, shape.value_dim, decay=True)


OPERATOR = Operator(
    symbol="g",
    kind="mixer",
    shape=GatedDeltaNetShape,
    genes={"head_dim": (32, 64, 128), "expand": (0.5, 0.75, 1.0), "value_ratio": (1.0, 2.0), "negative_eigenvalues": (False, True)},
    parameters=parameters,
    flops=flops,
    build=GatedDeltaNet,
    backends={"reference": Backend(load=lambda: REFERENCE)},
    state=state_spec,
    source="Yang et al. 2024, arXiv 2412.06464",
)
