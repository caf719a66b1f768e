"""Gated DeltaNet: the delta rule with a decay per head and an output gate, as in OLMo Hybrid.

Yang et al. 2024, arXiv 2412.06464.
"""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal
from operators.layers.delta_rule import chunked_delta_rule, delta_rule_flops, delta_rule_step, load_fla_step
from operators.layers.linear_attention import LinearAttentionShape, gated_output, matrix_state
from operators.layers.normalization import RMSNorm, l2_normalized
from operators.layers.recurrence import KeepsFloat32, Recurrence, initial_dt_bias
from operators.layers.short_convolution import (
    ShortConvolution,
    conv_parameters,
    conv_refusal,
    conv_spec,
    load_causal_conv1d,
)
from operators.operator import Backend, Operator, State, Surroundings, TensorSpec

# Published models have this value in the operator, whatever the layers' normalizations have.
HEAD_NORM_EPS = 1e-5


class GatedDeltaNetShape(LinearAttentionShape):
    """Heads of key_dim for queries and keys, and of value_dim for values, after a convolution.

    conv: tokens that the convolution sees.
    negative_eigenvalues: whether beta lies in (0, 2) instead of (0, 1), so that the state may also be
        reflected (Grazzi et al. 2024, arXiv 2411.12537).
    """

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


# The decay's projection […, H], A_log [H] and dt_bias [H].
Decay = tuple[Tensor, Tensor, Tensor]


def _gates(decay: Decay, beta: Tensor, negative: bool) -> tuple[Tensor, Tensor]:
    """The decay and beta's projection […, H] -> beta […, H] and the log decay […, H] (float32).

    negative: whether beta is doubled.
    """
    raw, A_log, dt_bias = decay
    beta = beta.sigmoid()
    return 2 * beta if negative else beta, -A_log.float().exp() * F.softplus(raw.float() + dt_bias.float())


def scan_reference(
    q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gated delta rule over a sequence, see `chunked_delta_rule`.

    q, k: [B, T, H, K] before they have unit length.
    v: [B, T, H, V].
    decay, beta, negative: as in `_gates`.
    initial: the state before [B, H, K, V]; None for zeros.
    """
    return chunked_delta_rule(l2_normalized(q), l2_normalized(k), v, *_gates(decay, beta, negative), initial)


def step_reference(
    q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, state: Tensor
) -> Tensor:
    """One token of `scan_reference`; its arguments have no dimension T."""
    return delta_rule_step(l2_normalized(q), l2_normalized(k), v, *_gates(decay, beta, negative), state)


def load_fla() -> Recurrence:
    """The kernels of flash-linear-attention. Raises ImportError."""
    library, kda = load("fla.ops.gated_delta_rule"), load("fla.ops.kda")
    backward_refused = _backward_refused(load("fla.utils"))
    one_token = load_fla_step()

    def scan(
        q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, initial: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        settings = {
            "initial_state": initial,
            "output_final_state": initial is not None,
            "use_qk_l2norm_in_kernel": True,
            "use_beta_sigmoid_in_kernel": True,
            "allow_neg_eigval": negative,
        }
        if backward_refused and torch.is_grad_enabled():
            raw, A_log, dt_bias = decay
            log_decay = -A_log.float().exp() * F.softplus(raw.float() + dt_bias.float())
            out, final = kda.chunk_kda(q, k, v, log_decay[..., None].expand(q.shape), beta, **settings)
        else:
            g, A_log, dt_bias = decay
            gate = {"use_gate_in_kernel": True, "A_log": A_log, "dt_bias": dt_bias}
            out, final = library.chunk_gated_delta_rule(q, k, v, g, beta, **settings, **gate)
        return out, final

    def step(
        q: Tensor, k: Tensor, v: Tensor, decay: Decay, beta: Tensor, negative: bool, state: Tensor
    ) -> Tensor:
        return one_token(q, k, v, beta, state, negative=negative, decay=decay)

    return Recurrence(scan=scan, step=step, convolution=load_causal_conv1d())


def _backward_refused(utils: Any) -> bool:
    """Whether fla refuses the backward pass of its own kernels here.

    On Hopper, Triton 3.4.0 to 3.7.0 compiles one of them wrongly (flash-linear-attention, issue
    640). Training then uses the kernels of KDA. The gated delta rule is KDA with the same decay
    for all channels of a key.
    """
    return bool(utils.IS_NVIDIA_HOPPER and utils.TRITON_ABOVE_3_4_0 and not utils.TRITON_ABOVE_3_7_1)


def refuses_fla(shape: GatedDeltaNetShape, device: torch.device, dtype: torch.dtype) -> str | None:
    if shape.key_dim > 256:
        return f"fla takes a key_dim of up to 256 for the delta rule, got {shape.key_dim}"
    return refusal(device, dtype) or conv_refusal(2 * shape.keys + shape.values, shape.conv)


class GatedDeltaNet(KeepsFloat32):
    """The gated delta rule after a convolution, with an output gate.

    State: `recurrent` [B, H, K, V] (float32), and `conv` [B, H·(2K + V), conv - 1]
    for q, k and v side by side.
    """

    reads: ClassVar = ("q_proj", "k_proj", "v_proj", "a_proj", "b_proj", "g_proj")
    writes: ClassVar = ("o_proj",)
    joined: ClassVar = ("q_proj", "k_proj", "v_proj")
    beside: ClassVar = ("a_proj", "b_proj", "g_proj")
    precise: ClassVar = ("A_log", "dt_bias")

    def __init__(self, architecture: Surroundings, shape: GatedDeltaNetShape, delta_rule: Recurrence) -> None:
        super().__init__()
        self.shape, self.delta_rule = shape, delta_rule
        width = architecture.width
        self.q_proj = nn.Linear(width, shape.keys, bias=False)
        self.k_proj = nn.Linear(width, shape.keys, bias=False)
        self.v_proj = nn.Linear(width, shape.values, bias=False)
        self.a_proj = nn.Linear(width, shape.heads, bias=False)
        self.b_proj = nn.Linear(width, shape.heads, bias=False)
        self.g_proj = nn.Linear(width, shape.values, bias=False)
        self.conv = ShortConvolution(
            2 * shape.keys + shape.values, shape.conv, kernels=delta_rule.convolution if delta_rule else None
        )
        # Uniform in (0, 16]: rand() may be 0, and the logarithm of 0 would switch the decay off for ever.
        self.A_log = nn.Parameter(torch.log(16 * (1 - torch.rand(shape.heads))))
        self.dt_bias = nn.Parameter(initial_dt_bias(shape.heads))
        self.o_norm = RMSNorm(shape.value_dim, eps=HEAD_NORM_EPS)
        self.o_proj = nn.Linear(shape.values, width, bias=False)

    def _project(self, x: Tensor) -> Tensor:
        return self.project(x)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """qkv […, H·(2K + V)] -> q and k […, H, K], and v […, H, V]."""
        parts = qkv.split([self.shape.keys, self.shape.keys, self.shape.values], -1)
        q, k, v = (part.unflatten(-1, (self.shape.heads, -1)) for part in parts)
        return q, k, v

    def _gates(self, x: Tensor) -> tuple[Decay, Tensor, bool]:
        """x […, W] -> the arguments of the kernels between v and the state."""
        return (self.a_proj(x), self.A_log, self.dt_bias), self.b_proj(x), self.shape.negative_eigenvalues

    def _output(self, x: Tensor, out: Tensor) -> Tensor:
        return gated_output(x, out, gate=self.g_proj, norm=self.o_norm, projection=self.o_proj)

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        q, k, v = self._heads(self.conv(self._project(x), state["conv"] if state else None))
        out, final = self.delta_rule.scan(q, k, v, *self._gates(x), state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
        return self._output(x, out)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        q, k, v = self._heads(self.conv.step(self._project(x), state["conv"]))
        return self._output(x, self.delta_rule.step(q, k, v, *self._gates(x), state["recurrent"]))


def state_spec(
    shape: GatedDeltaNetShape, batch: int, max_length: int, dtype: torch.dtype
) -> dict[str, TensorSpec]:
    conv = conv_spec(batch, 2 * shape.keys + shape.values, shape.conv, dtype)
    return {**matrix_state(shape, batch, max_length, dtype), "conv": conv}


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
    genes={
        "head_dim": (32, 64, 128),
        "expand": (0.5, 0.75, 1.0),
        "value_ratio": (1.0, 2.0),
        "negative_eigenvalues": (False, True),
    },
    parameters=parameters,
    flops=flops,
    build=GatedDeltaNet,
    backends={
        "fla": Backend(load=load_fla, refuses=refuses_fla),
        "reference": Backend(load=lambda: Recurrence(scan=scan_reference, step=step_reference)),
    },
    state=state_spec,
    precise=lambda shape: 2 * shape.heads,
    source="Yang et al. 2024, arXiv 2412.06464",
)
