"""Mamba3: a state space by the trapezoidal rule, whose state turns by angles that depend on the data.

Lahoti et al. 2026, arXiv 2603.15569. A head has one input and one output (SISO), as in mamba-ssm 2.3. The
variant with several (MIMO) would be another operator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal, tuned
from operators.layers.normalization import RMSNorm
from operators.layers.recurrence import LARGEST_INDEX, by_chunk, by_rows, carry, from_chunks, initial_dt_bias
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings, TensorSpec
from operators.shape import Shape

CHUNK = 64  # tokens: the work within a chunk grows with its square, the steps between chunks shrink with it
WEAKEST = 1e-4  # the smallest decay rate, as in the published model: a state is never kept for ever
# The published model has this value in the operator, whatever the layers' normalizations have.
HEAD_NORM_EPS = 1e-5
# Sizes of heads and states for which the library's kernels were compared. It takes powers of two alone.
LIBRARY_SIZES = (32, 64, 128)


class Mamba3Shape(Shape):
    """Heads of channels with a state each, parts of which turn.

    heads: how many.
    head_dim: channels of a head.
    state: numbers that a channel remembers.
    angles: pairs of these numbers that turn.
    groups: of heads; the heads of a group share B and C.
    """

    heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)]
    state: Annotated[int, Field(ge=2)]
    angles: Annotated[int, Field(ge=1)]
    groups: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _whole_groups_and_pairs(self) -> Self:
        if self.heads % self.groups:
            raise ValueError(
                f"expected heads to be a multiple of groups, got heads {self.heads} and groups {self.groups}"
            )
        if 2 * self.angles > self.state:
            raise ValueError(
                "expected at most half as many angles as state, "
                f"got angles {self.angles} and state {self.state}"
            )
        return self

    @classmethod
    def make(
        cls,
        width: int,
        *,
        expand: float = 2.0,
        head_dim: int = 64,
        state: int = 128,
        rope_fraction: float = 0.5,
        groups: int = 1,
    ) -> Self:
        heads = groups * max(1, round(expand * width / (head_dim * groups)))
        return cls(
            heads=heads,
            head_dim=head_dim,
            state=state,
            angles=max(1, round(rope_fraction * state / 2)),
            groups=groups,
        )

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "expand": self.inner / width,
            "head_dim": self.head_dim,
            "state": self.state,
            "rope_fraction": 2 * self.angles / self.state,
            "groups": self.groups,
        }

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def largest_of_token(self) -> int:
        """Numbers that a token has in the largest tensor: of keys, of values, or of the chunks' states."""
        size = max(self.state, self.head_dim, self.state * self.head_dim // CHUNK)
        return max(self.heads * size, sum(self.split))

    @property
    def split(self) -> list[int]:
        """Sizes of the parts of a projected token: z, v, k, q, dt, decay rate, trapezoid's share, angles."""
        shared = self.groups * self.state
        return [self.inner, self.inner, shared, shared, self.heads, self.heads, self.heads, self.angles]


@dataclass(frozen=True)
class Trapezoid:
    """The kernels of Mamba3.

    scan: a whole sequence from an initial state (None: zeros) -> the output and the final state.
    step: one token -> the output; the state is updated in place.
    """

    scan: Callable[..., tuple[Tensor, State]]
    step: Callable[..., Tensor]


def _turned(x: Tensor, bias: Tensor, angle: Tensor) -> Tensor:
    """x […, G, N] plus a bias [H, N], with the first pairs of neighbours turned -> […, H, N] float32.

    angle: that each pair is turned by […, H, R].
    """
    x = x.float().repeat_interleave(bias.shape[0] // x.shape[-2], -2) + bias.float()
    pairs = 2 * angle.shape[-1]
    first, second = x[..., :pairs].unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], -1).flatten(-2)
    return torch.cat([turned, x[..., pairs:]], -1)


def chunked_trapezoid(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rate: Tensor,
    dt: Tensor,
    share: Tensor,
    angles: Tensor,
    q_bias: Tensor,
    k_bias: Tensor,
    d: Tensor,
    initial: State | None,
) -> tuple[Tensor, State]:
    """The recurrence of Mamba3, in chunks -> y [B, T, H, P] (float32) and the final state.

    h_t = α_t h_{t-1} + α_t (1 - λ_t) dt_t v_{t-1} k̂_{t-1}ᵀ + λ_t dt_t v_t k̂_tᵀ and y_t = h_t q̂_t + d v_t,
    with the decay α_t = exp(rate_t dt_t) and λ_t = sigmoid(share_t).
    q̂ and k̂ are q + q_bias and k + k_bias, turned by the sum of π tanh(angles) dt over all tokens so far.

    q and k [B, T, G, N], v [B, T, H, P], rate (< 0), dt (> 0) and share [B, T, H], angles [B, T, R],
    q_bias and k_bias [H, N], d [H], initial as the state of `Mamba3`.
    """
    tokens, size, values = v.shape[1], min(CHUNK, v.shape[1]), v
    v, dt, share = v.float(), dt.float(), share.float().sigmoid()
    # In float64: a float32 sum over many tokens would lose the digits of the remainder.
    turn = (angles.float().tanh()[..., None, :] * (math.pi * dt[..., None])).double().cumsum(1)
    angle = (turn if initial is None else turn + initial["angle"][:, None]).remainder(2 * math.pi).float()
    q, k = _turned(q, q_bias, angle), _turned(k, k_bias, angle)
    final = {"angle": angle[:, -1], "key": k[:, -1], "value": values[:, -1]}

    now, later = dt * share, dt * (1 - share)
    start = v.new_zeros(*v.shape[:1], *v.shape[2:], k.shape[-1])
    if initial is not None:
        before_first = later[:, 0, :, None] * initial["value"].float()
        start = initial["recurrent"].float() + before_first[..., None] * initial["key"].float()[..., None, :]
    # What a token leaves for later ones: the end of its own trapezoid and the beginning of the next one.
    left = now + F.pad(later[:, 1:], (0, 0, 0, 1))
    q, k, v = (by_chunk(x, size).contiguous() for x in (q, k, v))
    # [chunks, B, H, 1, L]
    now, left, total = (by_chunk(x[..., None], size).mT for x in (now, left, rate.float() * dt))
    total = total.cumsum(-1)
    last = total[..., -1:]
    not_past = torch.ones(size, size, dtype=torch.bool, device=v.device).triu()
    # [to, from]; masked before exp, since differences to earlier tokens are positive and could overflow.
    weights = (total.mT - total).masked_fill(not_past, float("-inf")).exp() * left + torch.diag_embed(
        now[..., 0, :]
    )
    written = (v.mT * ((last - total).exp() * left)) @ k
    before, final["recurrent"] = carry(last.exp(), written, start)
    out = ((q @ k.mT) * weights) @ v + (q * total.mT.exp()) @ before.mT
    return torch.addcmul(from_chunks(out, tokens), values.float(), d.float()[:, None]), final


def trapezoid_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rate: Tensor,
    dt: Tensor,
    share: Tensor,
    angles: Tensor,
    q_bias: Tensor,
    k_bias: Tensor,
    d: Tensor,
    state: State,
) -> Tensor:
    """One token of `chunked_trapezoid` -> [B, H, P] float32.

    The arguments have no dimension T; the state is updated in place.
    """
    dt, share = dt.float(), share.float().sigmoid()
    state["angle"].add_(angles.float().tanh()[:, None] * (math.pi * dt[..., None])).remainder_(2 * math.pi)
    q, k = _turned(q, q_bias, state["angle"]), _turned(k, k_bias, state["angle"])
    state["recurrent"].addcmul_(
        (dt * (1 - share))[..., None, None] * state["value"].float()[..., None], state["key"][..., None, :]
    )
    state["recurrent"].mul_((rate.float() * dt).exp()[..., None, None])
    state["recurrent"].addcmul_((dt * share)[..., None, None] * v.float()[..., None], k[..., None, :])
    state["key"].copy_(k)
    state["value"].copy_(v)
    return (state["recurrent"] @ q[..., None])[..., 0] + v.float() * d.float()[:, None]


def load_mamba_ssm() -> Trapezoid:
    """The kernels of mamba_ssm for sequences; a step is the reference's. Raises ImportError."""
    library = load("mamba_ssm.ops.triton.mamba3.mamba3_siso_combined").mamba3_siso_combined

    def scan(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rate: Tensor,
        dt: Tensor,
        share: Tensor,
        angles: Tensor,
        q_bias: Tensor,
        k_bias: Tensor,
        d: Tensor,
        initial: State | None,
    ) -> tuple[Tensor, State]:
        found = library(
            q,
            k,
            v,
            (rate * dt).mT,
            dt.mT,
            share.mT,
            q_bias.float(),
            k_bias.float(),
            angles[:, :, None].expand(-1, -1, v.shape[2], -1),
            D=d.float(),
            Input_States=initial and tuple(initial[name] for name in _STATES),
            chunk_size=CHUNK,
            return_final_states=initial is not None,
        )
        if initial is None:
            return found, {}
        out, *states = found
        # The library rounds the angles that it returns to bfloat16: near a whole turn by up to 0.016.
        turn = math.pi * (dt.double().mT @ angles.float().tanh().double())
        angle = (initial["angle"] + turn).remainder(2 * math.pi).float()
        return out, {**dict(zip(_STATES, states, strict=True)), "angle": angle}

    return Trapezoid(scan=scan, step=trapezoid_step)


# The state's tensors in the order in which the library takes and returns them.
_STATES = ("angle", "recurrent", "key", "value")


def refuses_mamba_ssm(shape: Mamba3Shape, device: torch.device, dtype: torch.dtype) -> str | None:
    for name, size in (("head_dim", shape.head_dim), ("state", shape.state)):
        if size not in LIBRARY_SIZES:
            return f"mamba_ssm takes a {name} of {', '.join(map(str, LIBRARY_SIZES))} for mamba3, got {size}"
    if shape.angles % 2:
        return f"mamba_ssm takes an even number of angles for mamba3, got {shape.angles}"
    if dtype == torch.float16:
        return "mamba_ssm computes mamba3 in bfloat16, got float16"
    return refusal(device, dtype) or _untried(device)


def _untried(device: torch.device) -> str | None:
    """Why no configuration of the library's kernels is known to be safe on a GPU; None where some are.

    With heads of 128 and a state of 32, some that the autotuner tries end in an illegal memory access, and
    the process with them. Those that `tuned` names ran at all sizes.
    """
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    if "mamba3_siso_fwd_kernel" in tuned(architecture):
        return None
    return (
        f"mamba_ssm's kernels for mamba3 are not safe in all configurations; none is tried on {architecture}"
    )


class Mamba3(OperatorModule):
    """Mamba3.

    State: `recurrent` [B, H, P, N], `angle` [B, H, R] and the last token's turned `key` [B, H, N], all
    float32; and the last token's `value` [B, H, P] in the dtype of activations.
    """

    reads: ClassVar = ("in_proj",)
    writes: ClassVar = ("out_proj",)

    def __init__(self, architecture: Surroundings, shape: Mamba3Shape, trapezoid: Trapezoid) -> None:
        super().__init__()
        self.shape, self.trapezoid = shape, trapezoid
        self.in_proj = nn.Linear(architecture.width, sum(shape.split), bias=False)
        self.dt_bias = nn.Parameter(initial_dt_bias(shape.heads))
        self.B_norm = RMSNorm(shape.state, eps=HEAD_NORM_EPS)
        self.C_norm = RMSNorm(shape.state, eps=HEAD_NORM_EPS)
        self.B_bias = nn.Parameter(torch.ones(shape.heads, shape.state))
        self.C_bias = nn.Parameter(torch.ones(shape.heads, shape.state))
        self.D = nn.Parameter(torch.ones(shape.heads))
        self.out_proj = nn.Linear(shape.inner, architecture.width, bias=False)

    def _project(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x […, W] -> z […, H·P] and the arguments of the kernels before the state."""
        z, v, k, q, dt, rate, share, angles = self.in_proj(x).split(self.shape.split, -1)
        k, q = (
            norm(y.unflatten(-1, (self.shape.groups, -1))) for norm, y in ((self.B_norm, k), (self.C_norm, q))
        )
        dt = F.softplus(dt.float() + self.dt_bias.float())
        rate = -F.softplus(rate.float()).clamp(min=WEAKEST)
        v = v.unflatten(-1, (self.shape.heads, -1))
        return z, (q, k, v, rate, dt, share, angles, self.C_bias, self.B_bias, self.D)

    def _output(self, out: Tensor, z: Tensor) -> Tensor:
        y: Tensor = self.out_proj((out.flatten(-2) * F.silu(z.float())).to(z.dtype))
        return y

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        rows = max(1, LARGEST_INDEX // (x.shape[1] * self.shape.largest_of_token))
        if rows < x.shape[0]:
            return by_rows(self.forward, x, state, rows)
        z, arguments = self._project(x)
        out, final = self.trapezoid.scan(*arguments, state)
        if state:
            for name, value in final.items():
                state[name].copy_(value)
        return self._output(out, z)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        z, arguments = self._project(x)
        return self._output(self.trapezoid.step(*arguments, state), z)


def state_spec(shape: Mamba3Shape, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    return {
        "recurrent": TensorSpec((batch, shape.heads, shape.head_dim, shape.state), torch.float32),
        "angle": TensorSpec((batch, shape.heads, shape.angles), torch.float32),
        "key": TensorSpec((batch, shape.heads, shape.state), torch.float32),
        "value": TensorSpec((batch, shape.heads, shape.head_dim), dtype),
    }


def _matrix_elements(width: int, shape: Mamba3Shape) -> int:
    return width * (sum(shape.split) + shape.inner)


def parameters(width: int, shape: Mamba3Shape) -> int:
    return _matrix_elements(width, shape) + 2 * shape.heads * (shape.state + 1) + 2 * shape.state


def flops(width: int, shape: Mamba3Shape, context: int) -> int:
    """Forward FLOPs of one token; the recurrence counts as decay, two writes and a read of the state."""
    return 2 * _matrix_elements(width, shape) + 7 * shape.inner * shape.state


OPERATOR = Operator(
    symbol="m3",
    kind="mixer",
    shape=Mamba3Shape,
    genes={"expand": (1.0, 1.5, 2.0), "head_dim": (32, 64, 128), "state": (32, 64, 128)},
    parameters=parameters,
    flops=flops,
    build=Mamba3,
    backends={
        "mamba_ssm": Backend(load=load_mamba_ssm, refuses=refuses_mamba_ssm),
        "reference": Backend(load=lambda: Trapezoid(scan=chunked_trapezoid, step=trapezoid_step)),
    },
    state=state_spec,
    source="Lahoti et al. 2026, arXiv 2603.15569",
)
