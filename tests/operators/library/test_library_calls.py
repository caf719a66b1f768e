"""What RWKV7 and Mamba3 ask of kernel libraries, with stand-ins that compute what the libraries document."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import registry
from operators.layers.normalization import l2_normalized
from operators.library import mamba3, rwkv7
from operators.library.mamba3 import chunked_trapezoid
from operators.library.rwkv7 import STRONGEST, chunked_rwkv7
from tests.helpers.naive_recurrences import naive_trapezoid

B, T, H = 3, 7, 4


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def chunk_rwkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    lower_bound: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """fla.ops.rwkv7: S_t = diag(exp(w_t)) S_{t-1} + b_t a_tᵀ S_{t-1} + k_t v_tᵀ and o_t = scale S_tᵀ r_t."""
    assert {y.dtype for y in (r, k, v, a, b)} == {r.dtype}
    assert lower_bound is not None
    assert bool((w >= lower_bound).all())
    state = torch.zeros(B, H, 8, 6) if initial_state is None else initial_state
    out = []
    for t in range(r.shape[1]):
        erased = torch.einsum("bhk,bhkv->bhv", a[:, t], state)
        state = state * w[:, t, ..., None].exp() + torch.einsum("bhk,bhv->bhkv", b[:, t], erased)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        out.append(scale * torch.einsum("bhk,bhkv->bhv", r[:, t], state))
    return torch.stack(out, 1), state if output_final_state else None


@pytest.mark.parametrize("continues", [False, True])
def test_rwkv7_asks_fla_for_the_recurrence_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, continues: bool
) -> None:
    monkeypatch.setattr(rwkv7, "load", lambda module: SimpleNamespace(chunk_rwkv7=chunk_rwkv7))
    r, k = (torch.randn(B, T, H, 8) for _ in range(2))
    arguments = (
        r,
        -STRONGEST * torch.rand(B, T, H, 8),
        k,
        torch.randn(B, T, H, 6),
        l2_normalized(torch.randn(B, T, H, 8)),
        torch.rand(B, T, H, 8),
        torch.randn(B, H, 8, 6) if continues else None,
    )
    out, final = rwkv7.load_fla().scan(*arguments)
    expected, expected_final = chunked_rwkv7(*arguments)
    torch.testing.assert_close(out, expected)
    if continues:
        torch.testing.assert_close(final, expected_final)


def mamba3_siso_combined(*sequences: Tensor, **named: Any) -> Any:
    """mamba_ssm's function: its arguments have the shapes that it documents, its final angles are rounded."""
    q, k, v, decay, dt, share, q_bias, k_bias, angles = sequences
    assert set(named) == {"D", "Input_States", "chunk_size", "return_final_states"}
    assert decay.shape == dt.shape == share.shape == (v.shape[0], v.shape[2], v.shape[1])
    assert angles.shape[:3] == v.shape[:3]
    assert {y.dtype for y in (decay, dt, q_bias, k_bias, named["D"])} == {torch.float32}
    names = ("angle", "recurrent", "key", "value")
    shapes = (angles.shape[-1:], (v.shape[-1], q.shape[-1]), q.shape[-1:], v.shape[-1:])
    zeros = tuple(torch.zeros(v.shape[0], v.shape[2], *shape) for shape in shapes)
    initial = dict(zip(names, named["Input_States"] or zeros, strict=True))
    steps = [y.mT for y in (decay / dt, dt, share)]
    out, final = naive_trapezoid(q, k, v, *steps, angles[:, :, 0], q_bias, k_bias, named["D"], initial)
    final["angle"] = final["angle"].bfloat16()
    return (out, *(final[name] for name in names)) if named["return_final_states"] else out


@pytest.mark.parametrize("continues", [False, True])
def test_mamba3_asks_mamba_ssm_for_the_recurrence_of_the_reference(
    monkeypatch: pytest.MonkeyPatch, continues: bool
) -> None:
    library = SimpleNamespace(mamba3_siso_combined=mamba3_siso_combined)
    monkeypatch.setattr(mamba3, "load", lambda module: library)
    state = {
        "recurrent": torch.randn(B, H, 6, 8),
        "angle": torch.randn(B, H, 3),
        "key": torch.randn(B, H, 8),
        "value": torch.randn(B, H, 6),
    }
    arguments = (
        *(torch.randn(B, T, 2, 8) for _ in range(2)),
        torch.randn(B, T, H, 6),
        -torch.rand(B, T, H),
        torch.rand(B, T, H),
        torch.randn(B, T, H),
        torch.randn(B, T, 3),
        *(torch.randn(H, 8) for _ in range(2)),
        torch.randn(H),
        state if continues else None,
    )
    out, final = mamba3.load_mamba_ssm().scan(*arguments)
    expected, expected_final = chunked_trapezoid(*arguments)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    if continues:
        for name in ("recurrent", "key", "value"):
            torch.testing.assert_close(final[name], expected_final[name], rtol=1e-4, atol=1e-4)
        for part in (torch.cos, torch.sin):  # angles that differ by a whole turn are equal
            torch.testing.assert_close(part(final["angle"]), part(expected_final["angle"]), rtol=0, atol=1e-4)


def test_mamba3_has_the_library_only_where_its_configurations_were_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = registry.get("mamba3").shape.make(256)

    def reason_on(*capability: int) -> str | None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        return mamba3.refuses_mamba_ssm(shape, torch.device("cuda"), torch.bfloat16)

    assert reason_on(9, 0) is None
    assert "none is tried on sm_80" in str(reason_on(8, 0))
