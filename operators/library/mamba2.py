"""Mamba2: a state space whose decay is a scalar per head and token (Dao & Gu 2024, arXiv 2405.21060)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal
from operators.layers.normalization import RMSNorm
from operators.layers.recurrence import (
    LARGEST_INDEX,
    KeepsFloat32,
    Recurrence,
    by_chunk,
    by_rows,
    carry,
    from_chunks,
    initial_dt_bias,
)
from operators.layers.short_convolution import (
    ShortConvolution,
    conv_parameters,
    conv_refusal,
    conv_spec,
    load_causal_conv1d,
)
from operators.operator import Backend, Operator, State, Surroundings, TensorSpec
from operators.shape import Shape

CHUNK = 64  # tokens: the work within a chunk grows with its square, the steps between chunks shrink with it
LIBRARY_CHUNK = 256  # the published models have it, and mamba_ssm is tuned for it
LARGEST_NORM_BYTES = 65_536  # the library's kernel normalizes a whole group of channels in registers


class Mamba2Shape(Shape):
    """Heads of channels with a state each, after a convolution.

    heads: how many.
    head_dim: channels of a head.
    state: numbers that a channel remembers.
    groups: of heads; the heads of a group share B and C.
    conv: tokens that the convolution sees.
    """

    heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)]
    state: Annotated[int, Field(ge=1)]
    groups: Annotated[int, Field(ge=1)] = 1
    conv: Annotated[int, Field(ge=2)] = 4

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        if self.heads % self.groups:
            raise ValueError(
                f"expected heads to be a multiple of groups, got heads {self.heads} and groups {self.groups}"
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
        groups: int = 1,
        conv: int = 4,
    ) -> Self:
        heads = groups * max(1, round(expand * width / (head_dim * groups)))
        return cls(heads=heads, head_dim=head_dim, state=state, groups=groups, conv=conv)

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "expand": self.inner / width,
            "head_dim": self.head_dim,
            "state": self.state,
            "groups": self.groups,
            "conv": self.conv,
        }

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        return self.inner + 2 * self.groups * self.state


def chunked_ssd(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t a) h_{t-1} + dt_t x_t b_tᵀ and y_t = h_t c_t + d x_t, in chunks.

    x [B, T, H, P], dt (> 0) [B, T, H], a (< 0) and d [H], b and c [B, T, G, N], initial [B, H, P, N]
    -> y [B, T, H, P] and the final state [B, H, P, N], both float32.
    """
    tokens, size, groups = x.shape[1], min(CHUNK, x.shape[1]), b.shape[2]
    x, dt, b, c = x.float(), dt.float(), b.float(), c.float()
    # Tokens last, so that the heads of a group lie together and share one product with its b and c.
    inputs = by_chunk(x * dt[..., None], size).mT.contiguous()  # [chunks, B, H, P, L]
    total = by_chunk((dt * a.float())[..., None], size).mT.cumsum(-1)  # [chunks, B, H, 1, L]
    b, c = (by_chunk(y, size).contiguous() for y in (b, c))  # [chunks, B, G, L, N]
    last = total[..., -1:]

    past = torch.ones(size, size, dtype=torch.bool, device=x.device).tril(-1)
    # [from, to]; masked before exp, since differences to earlier tokens are positive and could overflow.
    ratio = (total - total.mT).masked_fill(past, float("-inf")).exp()
    scores = (b @ c.mT)[:, :, :, None] * ratio.unflatten(2, (groups, -1))
    out = inputs @ scores.flatten(2, 3)

    def grouped(y: Tensor) -> Tensor:
        return y.view(*y.shape[:2], groups, -1, y.shape[-1])

    written = (grouped(inputs * (last - total).exp()) @ b).view(*inputs.shape[:-1], -1)
    start = torch.zeros_like(written[0]) if initial is None else initial.float()
    before, final = carry(last.exp(), written, start)
    out = out + (grouped(before) @ c.mT).view_as(inputs) * total.exp()
    return torch.addcmul(from_chunks(out.mT, tokens), x, d.float()[:, None]), final


def ssd_step(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor) -> Tensor:
    """One token of the recurrence -> [B, H, P] float32.

    x [B, H, P], dt [B, H], a and d [H], b and c [B, G, N], state [B, H, P, N] (float32, updated in place).
    """
    x, dt = x.float(), dt.float()
    b, c = (y.float().repeat_interleave(x.shape[1] // y.shape[1], 1) for y in (b, c))
    state.mul_((dt * a.float()).exp()[..., None, None])
    state.addcmul_((x * dt[..., None])[..., None], b[:, :, None])
    return (state @ c[..., None])[..., 0] + x * d.float()[:, None]


@dataclass(frozen=True)
class SSD(Recurrence):
    """The kernels of Mamba2.

    gated_norm: (y, z […, H·P], norm) -> norm(y · silu(z)); None for the reference.
    """

    gated_norm: Callable[[Tensor, Tensor, RMSNorm], Tensor] | None = None


# dt as projected […, H], and dt_bias [H].
Steps = tuple[Tensor, Tensor]


def _positive(steps: Steps) -> Tensor:
    """The step sizes dt […, H] (float32, > 0)."""
    return F.softplus(steps[0].float() + steps[1].float())


def scan_reference(
    x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`chunked_ssd` with `steps` in place of dt."""
    return chunked_ssd(x, _positive(steps), a, b, c, d, initial)


def step_reference(
    x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor
) -> Tensor:
    """One token of `scan_reference`; its arguments have no dimension T."""
    return ssd_step(x, _positive(steps), a, b, c, d, state)


def gated_norm_reference(y: Tensor, z: Tensor, norm: RMSNorm) -> Tensor:
    out: Tensor = norm((y * F.silu(z.float())).to(z.dtype))
    return out


def load_mamba_ssm() -> SSD:
    """The kernels of mamba_ssm. Raises ImportError."""
    chunk_scan = load("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
    update = load("mamba_ssm.ops.triton.selective_state_update").selective_state_update
    fused_norm = load("mamba_ssm.ops.triton.layernorm_gated").rmsnorm_fn

    def scan(
        x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        dt, dt_bias = steps
        settings = {
            "D": d,
            "dt_bias": dt_bias,
            "dt_softplus": True,
            "initial_states": initial,
            "return_final_states": True,
        }
        out, final = chunk_scan(x, dt, a, b, c, LIBRARY_CHUNK, **settings)
        return out, final

    def step(x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor) -> Tensor:
        heads, size, states = state.shape[1:]
        # The kernel recognizes by strides of 0 what is the same for a whole head.
        dt, dt_bias = steps[0][..., None].expand(-1, -1, size), steps[1][:, None].expand(heads, size)
        a, d = a[:, None, None].expand(heads, size, states), d[:, None].expand(heads, size)
        y: Tensor = update(state, x, dt, a, b, c, d, dt_bias=dt_bias, dt_softplus=True)
        return y

    def gated_norm(y: Tensor, z: Tensor, norm: RMSNorm) -> Tensor:
        out: Tensor = fused_norm(
            y, norm.weight, None, z=z, eps=norm.eps, group_size=norm.group, norm_before_gate=False
        )
        return out

    return SSD(scan=scan, step=step, convolution=load_causal_conv1d(), gated_norm=gated_norm)


def refuses_mamba_ssm(shape: Mamba2Shape, device: torch.device, dtype: torch.dtype) -> str | None:
    group = shape.inner // shape.groups
    if group * dtype.itemsize > LARGEST_NORM_BYTES:
        most = LARGEST_NORM_BYTES // dtype.itemsize
        return f"mamba_ssm normalizes up to {most} channels together, got {group}"
    return refusal(device, dtype) or conv_refusal(shape.conv_channels, shape.conv)


class Mamba2(KeepsFloat32):
    """Mamba2. State: `recurrent` [B, H, P, N] (float32) and `conv` [B, H·P + 2·G·N, conv - 1]."""

    reads: ClassVar = ("in_proj",)
    writes: ClassVar = ("out_proj",)
    precise: ClassVar = ("A_log", "dt_bias", "D")

    def __init__(self, architecture: Surroundings, shape: Mamba2Shape, ssd: SSD) -> None:
        super().__init__()
        self.shape, self.ssd = shape, ssd
        self.in_proj = nn.Linear(
            architecture.width, shape.inner + shape.conv_channels + shape.heads, bias=False
        )
        self.conv = ShortConvolution(
            shape.conv_channels, shape.conv, bias=True, kernels=ssd.convolution if ssd else None
        )
        self.A_log = nn.Parameter(torch.log(torch.empty(shape.heads).uniform_(1, 16)))
        self.dt_bias = nn.Parameter(initial_dt_bias(shape.heads))
        self.D = nn.Parameter(torch.ones(shape.heads))
        self.norm = RMSNorm(shape.inner, eps=architecture.norm_eps, group=shape.inner // shape.groups)
        self.out_proj = nn.Linear(shape.inner, architecture.width, bias=False)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x […, W] -> z […, H·P], the convolution's input […, H·P + 2·G·N], and dt as projected […, H]."""
        z, xbc, dt = self.in_proj(x).split([self.shape.inner, self.shape.conv_channels, self.shape.heads], -1)
        return z, xbc, dt

    def _recurrence(self, xbc: Tensor, dt: Tensor) -> tuple[Tensor, Steps, Tensor, Tensor, Tensor, Tensor]:
        """The arguments of the kernels before the state."""
        shape, shared = self.shape, self.shape.groups * self.shape.state
        x, b, c = xbc.split([shape.inner, shared, shared], -1)
        b, c = b.unflatten(-1, (shape.groups, -1)), c.unflatten(-1, (shape.groups, -1))
        return x.unflatten(-1, (shape.heads, -1)), (dt, self.dt_bias), -self.A_log.float().exp(), b, c, self.D

    def _output(self, out: Tensor, z: Tensor) -> Tensor:
        gated_norm = self.ssd.gated_norm or gated_norm_reference
        y: Tensor = self.out_proj(gated_norm(out.flatten(-2), z, self.norm))
        return y

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        rows = max(1, LARGEST_INDEX // (x.shape[1] * self.in_proj.out_features))
        if rows < x.shape[0]:
            return by_rows(self.forward, x, state, rows)
        z, xbc, dt = self._project(x)
        xbc = self.conv(xbc, state["conv"] if state else None)
        out, final = self.ssd.scan(*self._recurrence(xbc, dt), state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
        return self._output(out, z)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        z, xbc, dt = self._project(x)
        xbc = self.conv.step(xbc, state["conv"])
        return self._output(self.ssd.step(*self._recurrence(xbc, dt), state["recurrent"]), z)


def state_spec(shape: Mamba2Shape, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    return {
        "recurrent": TensorSpec((batch, shape.heads, shape.head_dim, shape.state), torch.float32),
        "conv": conv_spec(batch, shape.conv_channels, shape.conv, dtype),
    }


def _matrix_elements(width: int, shape: Mamba2Shape) -> int:
    return width * (2 * shape.inner + shape.conv_channels + shape.heads)


def parameters(width: int, shape: Mamba2Shape) -> int:
    conv = conv_parameters(shape.conv_channels, shape.conv, bias=True)
    return _matrix_elements(width, shape) + conv + 3 * shape.heads + shape.inner


def flops(width: int, shape: Mamba2Shape, context: int) -> int:
    """Forward FLOPs of one token; the recurrence counts as decay, write and read of the state."""
    return (
        2 * _matrix_elements(width, shape)
        + 2 * shape.conv_channels * shape.conv
        + 5 * shape.inner * shape.state
    )


OPERATOR = Operator(
    symbol="m",
    kind="mixer",
    shape=Mamba2Shape,
    genes={"expand": (1.0, 1.5, 2.0), "head_dim": (32, 64, 128), "state": (32, 64, 128)},
    parameters=parameters,
    flops=flops,
    build=Mamba2,
    backends={
        "mamba_ssm": Backend(load=load_mamba_ssm, refuses=refuses_mamba_ssm),
        "reference": Backend(load=lambda: SSD(scan=scan_reference, step=step_reference)),
    },
    state=state_spec,
    precise=lambda shape: 3 * shape.heads,
    source="Dao & Gu 2024, arXiv 2405.21060",
)
