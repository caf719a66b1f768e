"""relu(x)² and its gradient in our kernels, to the last bit those of PyTorch."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from operators.library.relu2 import load_fused
from tests.helpers.fused_layers import DEVICE, ON_GPU
from tests.operators.conftest import INTERPRETED

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def squared_relu() -> Iterator[Callable[[Tensor], Tensor]]:
    """On a GPU where there is one, and in Triton's interpreter elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        if not ON_GPU:
            patch.setenv(INTERPRETED, "1")
        yield load_fused()


# Less than one program computes, exactly one, and the last of three with part of its numbers.
@pytest.mark.parametrize("shape", [(1,), (2, 1024), (3, 7, 211)])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        # The interpreter cuts off what bfloat16 has no bits for; a GPU rounds.
        pytest.param(
            torch.bfloat16,
            marks=[pytest.mark.gpu, pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")],
        ),
    ],
)
def test_it_is_that_of_pytorch(
    squared_relu: Callable[[Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x, seen = (torch.randn(shape, device=DEVICE).to(dtype) for _ in range(2))
    x.view(-1)[-1] = 0.0
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    out, expected = squared_relu(ours), F.relu(theirs).square()
    assert torch.equal(out, expected)
    out.backward(seen)
    expected.backward(seen)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


def test_what_lies_otherwise_in_memory_is_read_in_order(squared_relu: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(40, 30, device=DEVICE).mT.requires_grad_()
    out = squared_relu(x)
    assert torch.equal(out, F.relu(x).square())
    seen = torch.randn(40, 30, device=DEVICE).mT
    (gradient,) = torch.autograd.grad(out, x, seen)
    assert torch.equal(gradient, 2 * F.relu(x) * seen)
