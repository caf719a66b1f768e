"""The chunked recurrences against their definitions, one token after another in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from operators.delta_rule import chunked_delta_rule, delta_rule_step
from operators.library.gla import chunked_gla, gla_step
from operators.library.mamba2 import chunked_ssd, ssd_step
from operators.normalization import l2_normalized

Inputs = dict[str, Tensor]
Scan = Callable[..., tuple[Tensor, Tensor]]

B, H = 2, 4
lengths = pytest.mark.parametrize("tokens", [1, 17, 64, 130])
decays = pytest.mark.parametrize("strength", [0.01, 1.0, 60.0])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def naive_delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, initial: Tensor) -> tuple[Tensor, Tensor]:
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


def naive_ssd(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    state, out = initial, []
    group = [head // (x.shape[2] // b.shape[2]) for head in range(x.shape[2])]
    for t in range(x.shape[1]):
        write = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], b[:, t, group])
        state = state * (dt[:, t] * a).exp()[..., None, None] + write
        out.append(torch.einsum("bhpn,bhn->bhp", state, c[:, t, group]) + d[:, None] * x[:, t])
    return torch.stack(out, 1), state


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def log_decay(strength: float, *shape: int) -> Tensor:
    """From almost none to about `strength`, so that weak and strong decays stand side by side."""
    return -strength * torch.rand(*shape, dtype=torch.float64) ** 3


def delta_inputs(tokens: int, *, strength: float | None, reach: float = 1.0) -> Inputs:
    q, k = (l2_normalized(random(B, tokens, H, 8)).double() for _ in range(2))
    inputs = {"q": q, "k": k, "v": random(B, tokens, H, 6), "beta": reach * torch.rand(B, tokens, H, dtype=torch.float64)}
    decay = {} if strength is None else {"log_decay": log_decay(strength, B, tokens, H)}
    return inputs | decay | {"initial": random(B, H, 8, 6)}


def gla_inputs(tokens: int, strength: float) -> Inputs:
    keys = {name: random(B, tokens, H, 8) for name in ("q", "k")}
    return keys | {"v": random(B, tokens, H, 6), "log_decay": log_decay(strength, B, tokens, H, 8), "initial": random(B, H, 8, 6)}


def ssd_inputs(tokens: int, strength: float, groups: int) -> Inputs:
    keys = {name: random(B, tokens, groups, 5) for name in ("b", "c")}
    dt, a = torch.rand(B, tokens, H, dtype=torch.float64) ** 3, -strength * torch.rand(H, dtype=torch.float64)
    return {"x": random(B, tokens, H, 6), "dt": dt, "a": a, **keys, "d": random(H), "initial": random(B, H, 6, 5)}


def check(scan: Scan, naive: Scan, inputs: Inputs, **fixed: None) -> None:
    """Outputs, final states and the gradients of every input, largest error in parts of the largest value."""
    found = []
    for function, dtype in ((scan, torch.float32), (naive, torch.float64)):
        leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
        out, final = function(**leaves, **fixed)
        torch.manual_seed(1)
        loss = (torch.randn(out.shape, dtype=torch.float64) * out).sum() + final.square().sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        found.append(
            {"out": out, "final": final} | {f"gradient of {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
        )
    for name, expected in found[1].items():
        error = (found[0][name] - expected).abs().max() / expected.abs().max()
        # Gradients of decays are small differences of large sums, so float32 leaves fewer digits of them.
        assert error < (1e-3 if name.startswith("gradient") else 1e-4), f"{name}: {error:.1e}"


@lengths
@pytest.mark.parametrize("reach", [1.0, 2.0])
def test_delta_rule(tokens: int, reach: float) -> None:
    check(chunked_delta_rule, naive_delta_rule, delta_inputs(tokens, strength=None, reach=reach), log_decay=None)


@lengths
@decays
@pytest.mark.parametrize("reach", [1.0, 2.0])
def test_gated_delta_rule(tokens: int, strength: float, reach: float) -> None:
    check(chunked_delta_rule, naive_delta_rule, delta_inputs(tokens, strength=strength, reach=reach))


@lengths
@decays
def test_gla(tokens: int, strength: float) -> None:
    check(chunked_gla, naive_gla, gla_inputs(tokens, strength))


@lengths
@decays
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_ssd(tokens: int, strength: float, groups: int) -> None:
    check(chunked_ssd, naive_ssd, ssd_inputs(tokens, strength, groups))


def check_steps(scan: Scan, step: Callable[..., Tensor], inputs: Inputs, per_model: tuple[str, ...] = (), **fixed: None) -> None:
    inputs = {name: value.float() for name, value in inputs.items()}
    expected, final = scan(**inputs, **fixed)
    state = inputs.pop("initial").clone()
    address = state.data_ptr()
    for t in range(expected.shape[1]):
        token = {name: value if name in per_model else value[:, t] for name, value in inputs.items()}
        torch.testing.assert_close(step(**token, **fixed, state=state), expected[:, t], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state, final, rtol=1e-4, atol=1e-4)
    assert state.data_ptr() == address


def test_steps_equal_scans() -> None:
    check_steps(chunked_delta_rule, delta_rule_step, delta_inputs(70, strength=None), log_decay=None)
    check_steps(chunked_delta_rule, delta_rule_step, delta_inputs(70, strength=2.0))
    check_steps(chunked_gla, gla_step, gla_inputs(70, 2.0))
    check_steps(chunked_ssd, ssd_step, ssd_inputs(70, 2.0, 2), per_model=("a", "d"))
