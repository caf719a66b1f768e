"""Recurrences token by token, as their papers write them, for float64 tensors."""

import torch
from torch import Tensor

Inputs = dict[str, Tensor]


def naive_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, initial: Tensor
) -> tuple[Tensor, Tensor]:
    state, out = initial, []
    for t in range(q.shape[1]):
        if log_decay is not None:
            state = state * log_decay[:, t].exp()[..., None, None]
        predicted = torch.einsum("bhk,bhkv->bhv", k[:, t], state)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * (v[:, t] - predicted))
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state) / q.shape[-1] ** 0.5)
    return torch.stack(out, 1), state


def naive_gla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    state, out = initial, []
    for t in range(q.shape[1]):
        state = state * log_decay[:, t].exp()[..., None] + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state) / q.shape[-1] ** 0.5)
    return torch.stack(out, 1), state


def naive_ssd(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor]:
    state, out = initial, []
    group = [head // (x.shape[2] // b.shape[2]) for head in range(x.shape[2])]
    for t in range(x.shape[1]):
        write = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], b[:, t, group])
        state = state * (dt[:, t] * a).exp()[..., None, None] + write
        out.append(torch.einsum("bhpn,bhn->bhp", state, c[:, t, group]) + d[:, None] * x[:, t])
    return torch.stack(out, 1), state


def naive_kda(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor]:
    state, out = initial, []
    for t in range(q.shape[1]):
        strength = beta[:, t, :, None]
        reflection = torch.eye(k.shape[-1]) - torch.einsum("bhk,bhl->bhkl", strength * k[:, t], k[:, t])
        state = reflection @ (state * log_decay[:, t].exp()[..., None]) + torch.einsum(
            "bhk,bhv->bhkv", strength * k[:, t], v[:, t]
        )
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state) / q.shape[-1] ** 0.5)
    return torch.stack(out, 1), state


def naive_rwkv7(
    r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, removed: Tensor, rate: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor]:
    state, out = initial, []
    for t in range(r.shape[1]):
        transition = log_decay[:, t].exp().diag_embed() - torch.einsum(
            "bhk,bhl->bhkl", rate[:, t] * removed[:, t], removed[:, t]
        )
        state = transition @ state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", r[:, t], state))
    return torch.stack(out, 1), state


def naive_retention(q: Tensor, k: Tensor, v: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    decay = torch.tensor([1 - 2.0 ** (-5 - head) for head in range(q.shape[2])], dtype=torch.float64)
    state, out = initial, []
    for t in range(q.shape[1]):
        state = decay[:, None, None] * state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state) / q.shape[-1] ** 0.5)
    return torch.stack(out, 1), state


def naive_selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor
) -> tuple[Tensor, Tensor]:
    state, out = initial, []
    for t in range(x.shape[1]):
        write = torch.einsum("bd,bd,bn->bdn", dt[:, t], x[:, t], b[:, t])
        state = state * torch.einsum("bd,dn->bdn", dt[:, t], a).exp() + write
        out.append(torch.einsum("bdn,bn->bd", state, c[:, t]) + d * x[:, t])
    return torch.stack(out, 1), state


def naive_trapezoid(
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
    initial: Inputs,
) -> tuple[Tensor, Inputs]:
    """Turns pairs as complex numbers."""
    state, angle, key, value, out = (
        initial["recurrent"],
        initial["angle"],
        initial["key"],
        initial["value"],
        [],
    )
    group = [head // (v.shape[2] // q.shape[2]) for head in range(v.shape[2])]
    pairs = 2 * angles.shape[-1]

    def turned(x: Tensor) -> Tensor:
        first = torch.view_as_complex(x[..., :pairs].unflatten(-1, (-1, 2)))
        return torch.cat(
            [
                torch.view_as_real(first * torch.polar(torch.ones_like(angle), angle)).flatten(-2),
                x[..., pairs:],
            ],
            -1,
        )

    for t in range(v.shape[1]):
        decay, part = (rate[:, t] * dt[:, t]).exp(), share[:, t].sigmoid()
        angle = angle + torch.pi * torch.einsum("br,bh->bhr", angles[:, t].tanh(), dt[:, t])
        was = torch.einsum("bh,bhp,bhn->bhpn", decay * (1 - part) * dt[:, t], value, key)
        query, key, value = turned(q[:, t, group] + q_bias), turned(k[:, t, group] + k_bias), v[:, t]
        state = (
            decay[..., None, None] * state
            + was
            + torch.einsum("bh,bhp,bhn->bhpn", part * dt[:, t], value, key)
        )
        out.append(torch.einsum("bhpn,bhn->bhp", state, query) + d[:, None] * value)
    return torch.stack(out, 1), {"recurrent": state, "angle": angle, "key": key, "value": value}
