"""The chunked recurrences against their definitions, one token after another in float64."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from operators.layers.delta_rule import chunked_delta_rule, delta_rule_step
from operators.layers.normalization import l2_normalized
from operators.library.gla import chunked_gla, gla_step
from operators.library.kda import chunked_kda, kda_step
from operators.library.mamba import selective_scan, selective_step
from operators.library.mamba2 import chunked_ssd, ssd_step
from operators.library.mamba3 import chunked_trapezoid, trapezoid_step
from operators.library.retnet import chunked_retention, retention_step
from operators.library.rwkv7 import STRONGEST, chunked_rwkv7, rwkv7_step
from tests.helpers.naive_recurrences import (
    Inputs,
    naive_delta_rule,
    naive_gla,
    naive_kda,
    naive_retention,
    naive_rwkv7,
    naive_selective_scan,
    naive_ssd,
    naive_trapezoid,
)

Scan = Callable[..., tuple[Tensor, Tensor]]

B, H = 2, 4
LENGTHS, STRENGTHS = (1, 17, 64, 130), (0.01, 1.0, 60.0)
lengths = pytest.mark.parametrize("tokens", LENGTHS)
decays = pytest.mark.parametrize("strength", STRENGTHS)


def every_pair(name: str, values: tuple[float, ...]) -> pytest.MarkDecorator:
    """Every length with every strength of decay, and each of both with every value, but not all three.

    A recurrence is wrong by one of them or by how two of them meet: chunks by the length, whether powers of
    decays stay within float32 by length and strength, and shared keys or negative eigenvalues by either.
    """
    cases = [
        (tokens, strength, values[(row + column) % len(values)])
        for row, tokens in enumerate(LENGTHS)
        for column, strength in enumerate(STRENGTHS)
    ]
    assert {case[::2] for case in cases} == set(product(LENGTHS, values))
    assert {case[1:] for case in cases} == set(product(STRENGTHS, values))
    return pytest.mark.parametrize(("tokens", "strength", name), cases)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def log_decay(strength: float, *shape: int) -> Tensor:
    """Log decays from almost 0 to about `strength`: weak and strong ones are neighbours."""
    return -strength * torch.rand(*shape, dtype=torch.float64) ** 3


def delta_inputs(tokens: int, *, strength: float | None, reach: float = 1.0) -> Inputs:
    q, k = (l2_normalized(random(B, tokens, H, 8)).double() for _ in range(2))
    inputs = {
        "q": q,
        "k": k,
        "v": random(B, tokens, H, 6),
        "beta": reach * torch.rand(B, tokens, H, dtype=torch.float64),
    }
    decay = {} if strength is None else {"log_decay": log_decay(strength, B, tokens, H)}
    return inputs | decay | {"initial": random(B, H, 8, 6)}


def gla_inputs(tokens: int, strength: float) -> Inputs:
    keys = {name: random(B, tokens, H, 8) for name in ("q", "k")}
    return keys | {
        "v": random(B, tokens, H, 6),
        "log_decay": log_decay(strength, B, tokens, H, 8),
        "initial": random(B, H, 8, 6),
    }


def ssd_inputs(tokens: int, strength: float, groups: int) -> Inputs:
    keys = {name: random(B, tokens, groups, 5) for name in ("b", "c")}
    dt, a = torch.rand(B, tokens, H, dtype=torch.float64) ** 3, -strength * torch.rand(H, dtype=torch.float64)
    return {
        "x": random(B, tokens, H, 6),
        "dt": dt,
        "a": a,
        **keys,
        "d": random(H),
        "initial": random(B, H, 6, 5),
    }


def kda_inputs(tokens: int, strength: float, reach: float = 1.0) -> Inputs:
    q, k = (l2_normalized(random(B, tokens, H, 8)).double() for _ in range(2))
    gates = {
        "log_decay": log_decay(strength, B, tokens, H, 8),
        "beta": reach * torch.rand(B, tokens, H, dtype=torch.float64),
    }
    return {"q": q, "k": k, "v": random(B, tokens, H, 6), **gates, "initial": random(B, H, 8, 6)}


def rwkv7_inputs(tokens: int, power: float) -> Inputs:
    keys = {name: random(B, tokens, H, 8) for name in ("r", "k")}
    decay, rate = (
        -STRONGEST * torch.rand(B, tokens, H, 8, dtype=torch.float64) ** power,
        random(B, tokens, H, 8).sigmoid(),
    )
    removed = l2_normalized(random(B, tokens, H, 8)).double()
    return {
        **keys,
        "log_decay": decay,
        "v": random(B, tokens, H, 6),
        "removed": removed,
        "rate": rate,
        "initial": random(B, H, 8, 6),
    }


def retention_inputs(tokens: int) -> Inputs:
    return {name: random(B, tokens, H, 8) for name in ("q", "k")} | {
        "v": random(B, tokens, H, 6),
        "initial": random(B, H, 8, 6),
    }


def selective_inputs(tokens: int, strength: float) -> Inputs:
    keys = {name: random(B, tokens, 5) for name in ("b", "c")}
    dt, a = (
        torch.rand(B, tokens, 12, dtype=torch.float64) ** 3,
        -strength * torch.rand(12, 5, dtype=torch.float64),
    )
    return {
        "x": random(B, tokens, 12),
        "dt": dt,
        "a": a,
        **keys,
        "d": random(12),
        "initial": random(B, 12, 5),
    }


def trapezoid_inputs(tokens: int, strength: float, groups: int) -> Inputs:
    """Inputs in which three of four pairs turn; the state has its own names."""
    keys = {name: random(B, tokens, groups, 8) for name in ("q", "k")} | {
        name: random(H, 8) for name in ("q_bias", "k_bias")
    }
    steps = {
        "rate": -strength * torch.rand(B, tokens, H, dtype=torch.float64),
        "dt": torch.rand(B, tokens, H, dtype=torch.float64) ** 3,
    }
    rest = {
        "v": random(B, tokens, H, 6),
        "share": random(B, tokens, H),
        "angles": random(B, tokens, 3),
        "d": random(H),
    }
    state = {
        "recurrent": random(B, H, 6, 8),
        "angle": random(B, H, 3),
        "key": random(B, H, 8),
        "value": random(B, H, 6),
    }
    return {**keys, **steps, **rest, **state}


TRAPEZOID_STATE = ("recurrent", "angle", "key", "value")


def flat(state: Inputs) -> Tensor:
    """A trapezoid's state as one tensor, in which equivalent angles are equal."""
    parts = [state["recurrent"], state["angle"].cos(), state["angle"].sin(), state["key"], state["value"]]
    return torch.cat([part.flatten() for part in parts])


def with_flat_state(scan: Callable[..., tuple[Tensor, Inputs]]) -> Scan:
    def run(**inputs: Tensor) -> tuple[Tensor, Tensor]:
        initial = {name: inputs.pop(name) for name in TRAPEZOID_STATE}
        out, final = scan(**inputs, initial=initial)
        return out, flat(final)

    return run


def check(scan: Scan, naive: Scan, inputs: Inputs, **fixed: None) -> None:
    """Compares outputs, final states and all gradients by the largest error over the largest value."""
    runs = []
    for function, dtype in ((scan, torch.float32), (naive, torch.float64)):
        leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
        out, final = function(**leaves, **fixed)
        torch.manual_seed(1)
        loss = (torch.randn(out.shape, dtype=torch.float64) * out).sum() + final.square().sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        runs.append(
            {"out": out, "final": final}
            | {f"gradient of {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
        )
    for name, expected in runs[1].items():
        error = (runs[0][name] - expected).abs().max() / expected.abs().max()
        # Gradients of decays are small differences of large sums, so float32 leaves fewer digits of them.
        assert error < (1e-3 if name.startswith("gradient") else 1e-4), f"{name}: {error:.1e}"


@lengths
@pytest.mark.parametrize("reach", [1.0, 2.0])
def test_delta_rule(tokens: int, reach: float) -> None:
    check(
        chunked_delta_rule, naive_delta_rule, delta_inputs(tokens, strength=None, reach=reach), log_decay=None
    )


@every_pair("reach", (1.0, 2.0))
def test_gated_delta_rule(tokens: int, strength: float, reach: float) -> None:
    check(chunked_delta_rule, naive_delta_rule, delta_inputs(tokens, strength=strength, reach=reach))


@lengths
@decays
def test_gla(tokens: int, strength: float) -> None:
    check(chunked_gla, naive_gla, gla_inputs(tokens, strength))


@every_pair("groups", (1, 2, 4))
def test_ssd(tokens: int, strength: float, groups: int) -> None:
    check(chunked_ssd, naive_ssd, ssd_inputs(tokens, strength, groups))


@every_pair("reach", (1.0, 2.0))
def test_kda(tokens: int, strength: float, reach: float) -> None:
    check(chunked_kda, naive_kda, kda_inputs(tokens, strength, reach))


@lengths
@pytest.mark.parametrize("power", [3.0, 0.05])  # mostly weak decays, and mostly the strongest that there are
def test_rwkv7(tokens: int, power: float) -> None:
    check(chunked_rwkv7, naive_rwkv7, rwkv7_inputs(tokens, power))


@lengths
def test_retention(tokens: int) -> None:
    check(chunked_retention, naive_retention, retention_inputs(tokens))


@pytest.mark.parametrize("tokens", [1, 9, 64, 203])
@decays
def test_selective_scan(tokens: int, strength: float) -> None:
    check(selective_scan, naive_selective_scan, selective_inputs(tokens, strength))


@every_pair("groups", (1, 4))
def test_trapezoid(tokens: int, strength: float, groups: int) -> None:
    check(
        with_flat_state(chunked_trapezoid),
        with_flat_state(naive_trapezoid),
        trapezoid_inputs(tokens, strength, groups),
    )


def check_steps(
    scan: Scan, step: Callable[..., Tensor], inputs: Inputs, per_model: tuple[str, ...] = (), **fixed: None
) -> None:
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
    check_steps(chunked_kda, kda_step, kda_inputs(70, 2.0))
    check_steps(chunked_rwkv7, rwkv7_step, rwkv7_inputs(70, 1.0))
    check_steps(chunked_retention, retention_step, retention_inputs(70))
    check_steps(selective_scan, selective_step, selective_inputs(70, 2.0), per_model=("a", "d"))


def test_steps_of_the_trapezoid_equal_its_scan() -> None:
    inputs = {name: value.float() for name, value in trapezoid_inputs(70, 2.0, 2).items()}
    state = {name: inputs.pop(name) for name in TRAPEZOID_STATE}
    expected, final = chunked_trapezoid(**inputs, initial=state)
    for t in range(70):
        token = {
            name: value if name in ("q_bias", "k_bias", "d") else value[:, t]
            for name, value in inputs.items()
        }
        torch.testing.assert_close(trapezoid_step(**token, state=state), expected[:, t], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(flat(state), flat(final), rtol=1e-4, atol=1e-4)
