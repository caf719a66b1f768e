"""Mamba: a state space whose decay differs per channel, state and token (Gu & Dao 2023, arXiv 2312.00752)."""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from operators.kernels.libraries import load, refusal
from operators.layers.recurrence import KeepsFloat32, Recurrence, initial_dt_bias
from operators.layers.short_convolution import (
    ShortConvolution,
    conv_parameters,
    conv_refusal,
    conv_spec,
    load_causal_conv1d,
)
from operators.operator import Backend, Operator, State, Surroundings, TensorSpec
from operators.shape import Shape

# Tokens of a chunk, and chunks of a segment: enough to take few steps in Python,
# few enough to stay in a cache.
CHUNK = 8


class MambaShape(Shape):
    """Channels with a state each, after a convolution.

    inner: channels.
    state: numbers that a channel remembers.
    dt_rank: rank of the projection to step sizes.
    conv: tokens that the convolution sees.
    """

    inner: Annotated[int, Field(ge=1)]
    state: Annotated[int, Field(ge=1)]
    dt_rank: Annotated[int, Field(ge=1)]
    conv: Annotated[int, Field(ge=2)] = 4

    @classmethod
    def make(
        cls, width: int, *, expand: float = 2.0, state: int = 16, dt_rank: float = 1 / 16, conv: int = 4
    ) -> Self:
        return cls(
            inner=max(1, round(expand * width)),
            state=state,
            dt_rank=max(1, round(dt_rank * width)),
            conv=conv,
        )

    def genes(self, width: int) -> dict[str, Any]:
        return {
            "expand": self.inner / width,
            "state": self.state,
            "dt_rank": self.dt_rank / width,
            "conv": self.conv,
        }


def _linear_scan(decay: Tensor, states: Tensor, initial: Tensor, *, backward: bool = False) -> Tensor:
    """h_t = decay_t · h_{t-1} + states_t over a segment of chunks; returns the last h.

    It first runs all chunks at once from zero, which gives what each adds to the state; then the states
    between chunks; then all chunks at once from their true starts. So T tokens take 2 L + T / L steps, and
    nothing is ever divided by a decay.

    decay: [N, L, …].
    states: [N, L, …]; the h_t are written over it.
    initial: h before the first token […].
    backward: whether to run from the last token to the first.
    """
    order = range(states.shape[1])[:: -1 if backward else 1]
    added = torch.zeros_like(states[:, 0])
    for token in order:
        added = torch.addcmul(states[:, token], decay[:, token], added)
    kept = decay.prod(1)
    before = torch.empty_like(added)
    for chunk in range(states.shape[0])[:: -1 if backward else 1]:
        before[chunk] = initial
        initial = torch.addcmul(added[chunk], kept[chunk], initial)
    for token in order:
        before = states[:, token].addcmul_(decay[:, token], before)
    return initial


def _segments(x: Tensor) -> Tensor:
    """x [B, T, D] -> [S, N, L, B, D] in S segments, with zeros where there is no token."""
    size = min(CHUNK, x.shape[1])
    chunks = min(CHUNK, -(-x.shape[1] // size))
    x = F.pad(x, (0, 0, 0, -x.shape[1] % (size * chunks)))
    return x.transpose(0, 1).contiguous().view(-1, chunks, size, x.shape[0], x.shape[2])


class _SelectiveScan(torch.autograd.Function):
    """The recurrence with a backward pass that computes the states again, segment by segment.

    To keep all states of a training sequence would take too much memory.
    """

    @staticmethod
    def forward(
        ctx: Any, dt: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor, initial: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The output y, in the shape of u, and the final state [B, D, N'].

        dt and u = dt · x [S, N, L, B, D], a [D, N'], b and c [S, N, L, B, N'], initial [B, D, N'].
        """
        state, before, out = initial, [], []
        for dt_s, u_s, b_s, c_s in zip(dt, u, b, c, strict=True):
            before.append(state)
            states = u_s[..., None] * b_s[..., None, :]
            state = _linear_scan((dt_s[..., None] * a).exp_(), states, state)
            out.append((states @ c_s[..., None])[..., 0])
        ctx.save_for_backward(dt, u, a, b, c, *before)
        return torch.stack(out), state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        dt, u, a, b, c, *before = ctx.saved_tensors
        # Contiguous, so that tokens can be shifted through views below.
        grad_out, grad = (gradient.contiguous() for gradient in gradients)
        grad_dt, grad_u, grad_b, grad_c = (torch.empty_like(x) for x in (dt, u, b, c))
        grad_a = torch.zeros_like(a)
        for s in reversed(range(len(before))):
            decay = (dt[s][..., None] * a).exp_()
            states = u[s][..., None] * b[s][..., None, :]
            _linear_scan(decay, states, before[s])
            grad_c[s] = (grad_out[s][..., None, :] @ states)[..., 0, :]
            # Two parts make grad h_t: what y_t sends, and what comes through h_{t+1}, which
            # is decay_{t+1} · grad h_{t+1}.
            sent = grad_out[s][..., None] * c[s][..., None, :]
            through = decay * sent
            after, grad = grad, _linear_scan(decay, through, grad, backward=True)
            sent.flatten(0, 1)[:-1] += through.flatten(0, 1)[1:]
            sent[-1, -1] += after
            grad_u[s] = (sent @ b[s][..., None])[..., 0]
            grad_b[s] = (u[s][..., None, :] @ sent)[..., 0, :]
            through.flatten(0, 1)[1:] *= states.flatten(0, 1)[:-1]
            through[0, 0] *= before[s]
            grad_dt[s] = (through * a).sum(-1)
            grad_a += (through * dt[s][..., None]).sum((0, 1, 2))
        return grad_dt, grad_u, grad_a, grad_b, grad_c, grad


def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t a) h_{t-1} + dt_t x_t b_tᵀ and y_t = h_t c_t + d x_t.

    x and dt (> 0) [B, T, D], a (< 0) [D, N], b and c [B, T, N], d [D], initial [B, D, N]
    -> y [B, T, D] and the final state [B, D, N], both float32.
    """
    x, dt = x.float(), dt.float()
    start = x.new_zeros(x.shape[0], *a.shape) if initial is None else initial.float()
    inputs = (_segments(y) for y in (dt, dt * x))
    out, final = _SelectiveScan.apply(*inputs, a.float(), _segments(b.float()), _segments(c.float()), start)
    return torch.addcmul(out.flatten(0, 2)[: x.shape[1]].transpose(0, 1), x, d.float()), final


def selective_step(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor
) -> Tensor:
    """One token of the recurrence -> [B, D] float32.

    x and dt [B, D], a [D, N], b and c [B, N], d [D], state [B, D, N] (float32, updated in place).
    """
    x, dt = x.float(), dt.float()
    state.mul_((dt[..., None] * a.float()).exp())
    state.addcmul_((dt * x)[..., None], b.float()[:, None])
    return (state @ c.float()[..., None])[..., 0] + x * d.float()


# dt as projected […, D], and its bias [D].
Steps = tuple[Tensor, Tensor]


def _positive(steps: Steps) -> Tensor:
    """The step sizes dt […, D] (float32, > 0)."""
    # The sum is in float32: bfloat16 would round away small steps, which remember longest.
    return F.softplus(steps[0].float() + steps[1].float())


def scan_reference(
    x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`selective_scan` with `steps` in place of dt."""
    return selective_scan(x, _positive(steps), a, b, c, d, initial)


def step_reference(
    x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor
) -> Tensor:
    """One token of `scan_reference`; its arguments have no dimension T."""
    return selective_step(x, _positive(steps), a, b, c, d, state)


def load_mamba_ssm() -> Recurrence:
    """The kernels of mamba_ssm. Raises ImportError."""
    library = load("mamba_ssm.ops.selective_scan_interface")
    update = load("mamba_ssm.ops.triton.selective_state_update").selective_state_update

    def scan(
        x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        dt, bias = steps
        along = (y.mT.contiguous() for y in (b, c))
        y, final = library.selective_scan_fn(
            x.mT, dt.mT, a, *along, D=d, delta_bias=bias.float(), delta_softplus=True, return_last_state=True
        )
        y = y.mT
        if initial is not None:
            # The library always starts from zero. What the earlier state still adds is added here.
            total = _positive(steps).cumsum(1)
            y = y.float()
            for n in range(a.shape[1]):
                y.addcmul_((total * a[:, n]).exp_().mul_(initial[:, None, :, n]), c[..., n : n + 1].float())
            final = final + (total[:, -1, :, None] * a).exp() * initial
        return y, final

    def step(x: Tensor, steps: Steps, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor) -> Tensor:
        y: Tensor = update(state, x, steps[0], a, b, c, d, dt_bias=steps[1], dt_softplus=True)
        return y

    return Recurrence(scan=scan, step=step, convolution=load_causal_conv1d())


def refuses_mamba_ssm(shape: MambaShape, device: torch.device, dtype: torch.dtype) -> str | None:
    if shape.state > 256:
        return f"mamba_ssm takes a state of up to 256, got {shape.state}"
    return refusal(device, dtype) or conv_refusal(shape.inner, shape.conv)


class Mamba(KeepsFloat32):
    """Mamba. State: `recurrent` [B, D, N] (float32) and `conv` [B, D, conv - 1]."""

    reads: ClassVar = ("in_proj",)
    within: ClassVar = ("x_proj", "dt_proj")
    writes: ClassVar = ("out_proj",)
    precise: ClassVar = ("A_log", "D", "dt_proj.bias")

    def __init__(self, architecture: Surroundings, shape: MambaShape, selective: Recurrence) -> None:
        super().__init__()
        self.shape, self.selective = shape, selective
        self.in_proj = nn.Linear(architecture.width, 2 * shape.inner, bias=False)
        self.conv = ShortConvolution(
            shape.inner, shape.conv, bias=True, kernels=selective.convolution if selective else None
        )
        self.x_proj = nn.Linear(shape.inner, shape.dt_rank + 2 * shape.state, bias=False)
        self.dt_proj = nn.Linear(shape.dt_rank, shape.inner)
        self.dt_proj.bias = nn.Parameter(initial_dt_bias(shape.inner))
        self.A_log = nn.Parameter(torch.arange(1.0, shape.state + 1).log().repeat(shape.inner, 1))
        self.D = nn.Parameter(torch.ones(shape.inner))
        self.out_proj = nn.Linear(shape.inner, architecture.width, bias=False)

    def _recurrence(self, x: Tensor) -> tuple[Tensor, Steps, Tensor, Tensor, Tensor, Tensor]:
        """x […, D] -> the arguments of the kernels before the state."""
        rank, b, c = self.x_proj(x).split([self.shape.dt_rank, self.shape.state, self.shape.state], -1)
        steps = (F.linear(rank, self.dt_proj.weight), self.dt_proj.bias)
        return x, steps, -self.A_log.float().exp(), b, c, self.D

    def _output(self, out: Tensor, z: Tensor) -> Tensor:
        y: Tensor = self.out_proj((out * F.silu(z.float())).to(z.dtype))
        return y

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        x, z = self.in_proj(x).chunk(2, -1)
        x = self.conv(x, state["conv"] if state else None)
        out, final = self.selective.scan(
            *self._recurrence(x), state["recurrent"] if state and length else None
        )
        if state:
            state["recurrent"].copy_(final)
        return self._output(out, z)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        x, z = self.in_proj(x).chunk(2, -1)
        x = self.conv.step(x, state["conv"])
        return self._output(self.selective.step(*self._recurrence(x), state["recurrent"]), z)


def state_spec(shape: MambaShape, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    return {
        "recurrent": TensorSpec((batch, shape.inner, shape.state), torch.float32),
        "conv": conv_spec(batch, shape.inner, shape.conv, dtype),
    }


def _matrix_elements(width: int, shape: MambaShape) -> int:
    return shape.inner * (3 * width + 2 * shape.dt_rank + 2 * shape.state)


def parameters(width: int, shape: MambaShape) -> int:
    conv = conv_parameters(shape.inner, shape.conv, bias=True)
    return _matrix_elements(width, shape) + conv + shape.inner * (shape.state + 2)


def flops(width: int, shape: MambaShape, context: int) -> int:
    """Forward FLOPs of one token.

    The recurrence counts as decay, write and read of the state. Every number of the state has a decay of its
    own, which counts as well.
    """
    return 2 * _matrix_elements(width, shape) + 2 * shape.inner * shape.conv + 6 * shape.inner * shape.state


OPERATOR = Operator(
    symbol="s",
    kind="mixer",
    shape=MambaShape,
    genes={"expand": (1.0, 1.5, 2.0), "state": (8, 16, 32)},
    parameters=parameters,
    flops=flops,
    build=Mamba,
    backends={
        "mamba_ssm": Backend(load=load_mamba_ssm, refuses=refuses_mamba_ssm),
        "reference": Backend(load=lambda: Recurrence(scan=scan_reference, step=step_reference)),
    },
    state=state_spec,
    precise=lambda shape: (shape.state + 2) * shape.inner,
    source="Gu & Dao 2023, arXiv 2312.00752",
)
