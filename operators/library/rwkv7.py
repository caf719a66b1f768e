"""RWKV-7 time mixing: a delta rule with a decay and a learning rate per channel and token.

Peng et al. 2025, arXiv 2503.14456. The published model mixes the values of each layer with the first layer's
(`v_first`). An operator is one layer and has its own values alone. The rest is as published.
"""

import math
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from operators.base.errors import ArchitectureError
from operators.kernels.libraries import load, refusal
from operators.layers.recurrence import Recurrence, by_chunk, from_chunks
from operators.operator import Backend, Operator, OperatorModule, State, Surroundings, TensorSpec
from operators.shape import Shape

CHUNK = 64  # tokens: the work within a chunk grows with its square, the steps between chunks shrink with it
# exp(-1/2), the strongest log decay of a token: the decays of a chunk stay far from the limits of float32.
STRONGEST = 0.6065306597126334
# Published models have this value, times the size of a head, whatever the layers' normalizations have.
HEAD_NORM_EPS = 1e-5
RANK_UNIT = 32  # ranks are multiples of this, as in published models
LARGEST_LIBRARY_HEAD = 128  # the largest size of a head for which the library's kernels were compared

Rank = Annotated[int, Field(ge=RANK_UNIT, multiple_of=RANK_UNIT)]


class RWKV7Shape(Shape):
    """Heads of one size, and projections of low rank.

    width: of the residual stream; the state keeps the last token of it.
    heads: how many.
    head_dim: size of a head.
    decay_rank: rank of the decay's projection.
    a_rank: rank of the learning rate's projection.
    gate_rank: rank of the output gate's projection.
    """

    width: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)]
    decay_rank: Rank
    a_rank: Rank
    gate_rank: Rank

    @classmethod
    def make(
        cls,
        width: int,
        *,
        head_dim: int = 64,
        expand: float = 1.0,
        decay_rank: float = 2.5,
        a_rank: float = 2.5,
        gate_rank: float = 5.0,
    ) -> Self:
        """The shape of these genes at `width`.

        Ranks are in units of √width, and for decay and `a` times head_dim / 64. They are
        rounded to multiples of 32.
        """

        def rank(gene: float) -> int:
            return RANK_UNIT * max(1, round(gene * math.sqrt(width) / RANK_UNIT))

        by_head = head_dim / 64
        return cls(
            width=width,
            heads=max(1, round(expand * width / head_dim)),
            head_dim=head_dim,
            decay_rank=rank(decay_rank * by_head),
            a_rank=rank(a_rank * by_head),
            gate_rank=rank(gate_rank),
        )

    def genes(self, width: int) -> dict[str, Any]:
        root, by_head = math.sqrt(width), self.head_dim / 64
        return {
            "head_dim": self.head_dim,
            "expand": self.inner / width,
            "decay_rank": self.decay_rank / root / by_head,
            "a_rank": self.a_rank / root / by_head,
            "gate_rank": self.gate_rank / root,
        }

    @property
    def inner(self) -> int:
        return self.heads * self.head_dim


def chunked_rwkv7(
    r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, removed: Tensor, rate: Tensor, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The recurrence of RWKV-7, in chunks -> out [B, T, H, V] and the final state [B, H, K, V], both float32.

    S_t = (diag(exp(log_decay_t)) - (rate_t ⊙ removed_t) removed_tᵀ) S_{t-1} + k_t v_tᵀ and o_t = S_tᵀ r_t.
    With z_t = -S_{t-1}ᵀ removed_t a token writes (rate ⊙ removed)_t z_tᵀ + k_t v_tᵀ, and the z of a chunk
    solve a triangular system.

    r, log_decay (from -exp(-1/2) to 0), k, removed (of unit length) and rate (in (0, 1)) [B, T, H, K],
    v [B, T, H, V], initial [B, H, K, V].
    """
    tokens, size = r.shape[1], min(CHUNK, r.shape[1])
    r, log_decay, k, v, removed, rate = (
        by_chunk(x.float(), size).contiguous() for x in (r, log_decay, k, v, removed, rate)
    )
    total = log_decay.cumsum(-2)  # [chunks, B, H, L, K]
    # A decay between two tokens is a product of two factors around the chunk's middle. As the log decay is
    # bounded, both lie within exp(±20).
    middle = total[..., -1:, :] / 2
    to_middle, from_middle = (middle - total).exp(), (total - middle).exp()
    sources = torch.cat([rate * removed * to_middle, k * to_middle], -2)
    read = r * from_middle
    erased = -removed * (total - log_decay - middle).exp()  # before the token's own decay
    onto_z, onto_v = (erased @ sources.mT).split(size, -1)
    seen_z, seen_v = (scores.tril() for scores in (read @ sources.mT).split(size, -1))
    # The solver reads the strictly lower triangle alone.
    inverse = torch.linalg.solve_triangular(
        -onto_z, torch.eye(size, device=k.device), upper=False, unitriangular=True
    )
    half = middle.exp()
    fresh, stale = (inverse @ torch.cat([onto_v.tril(-1) @ v, erased * half], -1)).split(
        [v.shape[-1], k.shape[-1]], -1
    )
    written_z, written_v = (sources * half).mT.split(size, -1)
    read, out_v, state_v, keep = read * half, seen_v @ v, written_v @ v, (2 * middle).mT.exp()

    state = torch.zeros_like(state_v[0]) if initial is None else initial.float()
    out = []
    parts = (fresh, stale, read, seen_z, out_v, written_z, state_v, keep)
    for fresh_n, stale_n, read_n, seen_n, out_n, written_n, state_n, keep_n in zip(
        *(part.unbind(0) for part in parts), strict=True
    ):
        z = fresh_n + stale_n @ state
        out.append(out_n + read_n @ state + seen_n @ z)
        state = keep_n * state + state_n + written_n @ z
    return from_chunks(torch.stack(out), tokens), state


def rwkv7_step(
    r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, removed: Tensor, rate: Tensor, state: Tensor
) -> Tensor:
    """One token of the recurrence -> [B, H, V] float32.

    r, log_decay, k, removed and rate [B, H, K], v [B, H, V], state [B, H, K, V] (float32, updated in place).
    """
    removed = removed.float()
    z = -(removed[..., None, :] @ state)
    state.mul_(log_decay.float().exp()[..., None])
    state.addcmul_((rate.float() * removed)[..., None], z)
    state.addcmul_(k.float()[..., None], v.float()[..., None, :])
    return (r.float()[..., None, :] @ state)[..., 0, :]


def load_fla() -> Recurrence:
    """The kernels of flash-linear-attention for sequences; a step is the reference's. Raises ImportError."""
    library = load("fla.ops.rwkv7")

    def scan(
        r: Tensor,
        log_decay: Tensor,
        k: Tensor,
        v: Tensor,
        removed: Tensor,
        rate: Tensor,
        initial: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        out, final = library.chunk_rwkv7(
            r,
            log_decay,
            k,
            v,
            -removed.to(r.dtype),
            (rate * removed).to(r.dtype),
            initial_state=initial,
            output_final_state=initial is not None,
            # By this bound the library takes chunks of 64 tokens, whose decays stay within float32.
            lower_bound=-STRONGEST,
        )
        return out, final

    return Recurrence(scan=scan, step=rwkv7_step)


def refuses_fla(shape: RWKV7Shape, device: torch.device, dtype: torch.dtype) -> str | None:
    if shape.head_dim > LARGEST_LIBRARY_HEAD:
        return f"fla takes a head_dim of up to {LARGEST_LIBRARY_HEAD} for rwkv7, got {shape.head_dim}"
    return refusal(device, dtype)


class RWKV7(OperatorModule):
    """RWKV-7 time mixing.

    State: `recurrent` [B, H, K, V] (float32), K = V = head_dim, and `shift` [B, W], the last input.

    In the published model the first values of parameters depend on the layer's place. Here each layer starts
    as a middle one.
    """

    reads: ClassVar = ("r_proj", "k_proj", "v_proj", "decay_down_proj", "a_down_proj", "gate_down_proj")
    within: ClassVar = ("decay_up_proj", "a_up_proj", "gate_up_proj")
    writes: ClassVar = ("o_proj",)
    # In the order of `mix`: each reads a mixture of its own, so no product of one x applies them.
    beside: ClassVar = ("r_proj", "decay_down_proj", "k_proj", "v_proj", "a_down_proj", "gate_down_proj")

    def __init__(self, architecture: Surroundings, shape: RWKV7Shape, delta_rule: Recurrence) -> None:
        """Raises ArchitectureError for a shape of another width."""
        super().__init__()
        width, inner = architecture.width, shape.inner
        if shape.width != width:
            raise ArchitectureError(
                f"rwkv7: expected a shape of the architecture's width {width}, got one of width {shape.width}"
            )
        self.shape, self.delta_rule = shape, delta_rule
        self.mix = nn.Parameter(_initial_mix(width))
        self.r_proj = nn.Linear(width, inner, bias=False)
        self.k_proj = nn.Linear(width, inner, bias=False)
        self.v_proj = nn.Linear(width, inner, bias=False)
        self.decay_down_proj = nn.Linear(width, shape.decay_rank, bias=False)
        self.decay_up_proj = nn.Linear(shape.decay_rank, inner)
        self.a_down_proj = nn.Linear(width, shape.a_rank, bias=False)
        self.a_up_proj = nn.Linear(shape.a_rank, inner)
        self.gate_down_proj = nn.Linear(width, shape.gate_rank, bias=False)
        self.gate_up_proj = nn.Linear(shape.gate_rank, inner, bias=False)
        along = torch.linspace(0, 1, inner)
        in_head = torch.linspace(-1, 1, shape.head_dim).repeat(shape.heads)
        bend = in_head * in_head.abs()
        self.decay_up_proj.bias = nn.Parameter(6 * along ** (1 + 0.5**0.3) - 5.5 + 2.5 * bend)
        self.a_up_proj.bias = nn.Parameter(0.4 * (along - 0.5) - 0.19 + 0.3 * bend)
        self.k_k = nn.Parameter(0.76 - 0.1 * along)
        self.k_a = nn.Parameter(torch.full((inner,), 1.02))
        self.r_k = nn.Parameter(torch.full((shape.heads, shape.head_dim), -0.04))
        self.o_norm = nn.GroupNorm(shape.heads, inner, eps=HEAD_NORM_EPS * shape.head_dim)
        self.o_proj = nn.Linear(inner, width, bias=False)

    def _project(self, x: Tensor, before: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The arguments of the kernels before the state, each […, H, K], and the gate […, H·K].

        x: the tokens […, W].
        before: the token before each of them […, W].
        """
        mixed = torch.addcmul(x, before - x, self.mix.view(-1, *[1] * (x.dim() - 1), x.shape[-1]))
        x_r, x_decay, x_k, x_v, x_a, x_gate = mixed.unbind(0)
        log_decay = -STRONGEST * self.decay_up_proj(self.decay_down_proj(x_decay).tanh()).float().sigmoid()
        rate = self.a_up_proj(self.a_down_proj(x_a)).sigmoid()
        gate = self.gate_up_proj(self.gate_down_proj(x_gate).sigmoid())
        k = self.k_proj(x_k)
        parts = (
            self.r_proj(x_r),
            log_decay,
            k + k * (rate - 1) * self.k_a,
            self.v_proj(x_v),
            k * self.k_k,
            rate,
        )
        r, log_decay, k, v, removed, rate = (part.unflatten(-1, (self.shape.heads, -1)) for part in parts)
        return (r, log_decay, k, v, F.normalize(removed.float(), dim=-1), rate), gate

    def _output(self, out: Tensor, parts: tuple[Tensor, ...], gate: Tensor) -> Tensor:
        """The recurrence's out […, H, K] -> […, W]; a token also reads its own value, which the state lacks.

        parts: what `_project` returned.
        gate: […, H·K].
        """
        r, _, k, v, _, _ = parts
        norm = self.o_norm
        rows = out.float().reshape(-1, self.shape.inner)
        normal = F.group_norm(rows, norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps).view(
            gate.shape
        )
        bonus = (r * k * self.r_k).sum(-1, keepdim=True) * v
        y: Tensor = self.o_proj((normal.to(gate.dtype) + bonus.flatten(-2)) * gate)
        return y

    def forward(
        self, x: Tensor, state: State | None = None, position: Tensor | None = None, length: int = 0
    ) -> Tensor:
        first = state["shift"].to(x.dtype) if state else torch.zeros_like(x[:, 0])
        parts, gate = self._project(x, torch.cat([first[:, None], x[:, :-1]], 1))
        out, final = self.delta_rule.scan(*parts, state["recurrent"] if state else None)
        if state:
            state["recurrent"].copy_(final)
            state["shift"].copy_(x[:, -1])
        return self._output(out, parts, gate)

    def step(self, x: Tensor, state: State, position: Tensor) -> Tensor:
        parts, gate = self._project(x, state["shift"].to(x.dtype))
        state["shift"].copy_(x)
        return self._output(self.delta_rule.step(*parts, state["recurrent"]), parts, gate)


def _initial_mix(width: int) -> Tensor:
    """[6, W]: the share of the token before in the inputs of r, decay, k, v, a and gate.

    It falls from channel to channel.
    """
    channel = torch.arange(width) / width
    return torch.stack([1 - channel ** (0.5 * power) for power in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)])


def state_spec(shape: RWKV7Shape, batch: int, max_length: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
    return {
        "recurrent": TensorSpec((batch, shape.heads, shape.head_dim, shape.head_dim), torch.float32),
        "shift": TensorSpec((batch, shape.width), dtype),
    }


def _matrix_elements(width: int, shape: RWKV7Shape) -> int:
    return 4 * width * shape.inner + (width + shape.inner) * (
        shape.decay_rank + shape.a_rank + shape.gate_rank
    )


def parameters(width: int, shape: RWKV7Shape) -> int:
    return _matrix_elements(width, shape) + 6 * width + 7 * shape.inner


def flops(width: int, shape: RWKV7Shape, context: int) -> int:
    """Forward FLOPs of one token; the recurrence counts as decay, two reads and two writes of the state."""
    return 2 * _matrix_elements(width, shape) + 9 * shape.inner * shape.head_dim


OPERATOR = Operator(
    symbol="w",
    kind="mixer",
    shape=RWKV7Shape,
    genes={"head_dim": (32, 64, 128), "expand": (0.75, 1.0)},
    parameters=parameters,
    flops=flops,
    build=RWKV7,
    backends={
        "fla": Backend(load=load_fla, refuses=refuses_fla),
        "reference": Backend(load=lambda: Recurrence(scan=chunked_rwkv7, step=rwkv7_step)),
    },
    state=state_spec,
    source="Peng et al. 2025, arXiv 2503.14456",
)
