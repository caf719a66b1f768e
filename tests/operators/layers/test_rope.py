"""Rotary positions: the same to the last bit as pair by pair."""

import pytest
import torch
from torch import Tensor

from operators.layers.rope import frequencies, rotated, turn_at


def pair_by_pair(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotates x [B, T, H, D] as the definition says it, in float32."""
    half = x.shape[-1] // 2
    angle = (positions[..., None].float() * frequencies(theta, None, half, x.device))[:, :, None]
    first, second = x.float().split(half, -1)
    turned = [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()]
    return torch.cat(turned, -1).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("start", [None, (3, 5000)])
def test_a_rotation_and_its_gradient_are_those_of_the_definition(
    dtype: torch.dtype, start: tuple[int, int] | None
) -> None:
    positions = torch.arange(17)[None]
    if start is not None:
        positions = positions + torch.tensor(start)[:, None]  # each row has its own
    x = torch.randn(2, 17, 6, 32, dtype=dtype)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = rotated(turn_at(positions, 1e4, None, 32), ours)
    expected = pair_by_pair(theirs, positions, 1e4)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    weight = torch.randn_like(x)
    for result in (found, expected):
        (result * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)
