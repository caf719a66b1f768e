"""Products with one row and with a few: every combination against float64."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from operators.layers.normalization import LayerNorm, RMSNorm, build_norm
from tests.helpers.fused_layers import DEVICE, DTYPE, TOLERANCE, far


def expected(x: Tensor, weight: Tensor, norm: Any, bias: Any, activation: str, divisor: Any) -> Tensor:
    x, weight = x.double(), weight.double()
    if isinstance(norm, RMSNorm):
        x = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()
    elif isinstance(norm, LayerNorm):
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        x = centred / deviation * norm.weight.double() + norm.bias.double()
    y = x @ weight.T + (0 if bias is None else bias.double())
    if activation == "swiglu":
        gate, up = y.chunk(2, -1)
        y = F.silu(gate) * up
    if activation == "relu2":
        y = y.clamp_min(0).square()
    return y if divisor is None else y / divisor.double()


@pytest.mark.parametrize(
    ("rows", "outputs", "inputs", "norm", "activation", "bias", "divided", "onto"),
    [
        (1, 7, 24, None, "none", False, False, False),
        (
            1,
            9,
            600,
            "rmsnorm",
            "none",
            True,
            False,
            False,
        ),  # more than one tile of columns, the last not full
        (1, 5, 40, "layernorm", "swiglu", False, False, False),
        (1, 6, 1100, "layernorm", "none", False, False, True),
        (1, 10, 48, "rmsnorm", "relu2", False, False, False),
        (1, 19, 16, "rmsnorm", "none", False, True, False),
        (2, 17, 24, None, "none", False, False, True),
        (3, 33, 520, "rmsnorm", "swiglu", False, False, False),
        (8, 16, 40, "layernorm", "none", True, False, False),
        (9, 20, 24, "rmsnorm", "relu2", False, False, True),
        (16, 18, 16, "rmsnorm", "none", False, True, False),
    ],
)
def test_product_is_that_of_the_definition(
    poisoned: None,
    rows: int,
    outputs: int,
    inputs: int,
    norm: str | None,
    activation: Any,
    bias: bool,
    divided: bool,
    onto: bool,
) -> None:
    from operators.kernels.products import product

    torch.manual_seed(rows)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, device=DEVICE).to(DTYPE)

    x, weight = drawn(rows, inputs) + 0.5, drawn(outputs * (2 if activation == "swiglu" else 1), inputs) / 8
    module = None if norm is None else build_norm(norm, inputs, 1e-3).to(DEVICE, DTYPE)
    for parameter in () if module is None else module.parameters():
        torch.nn.init.normal_(parameter, 1.0)
    added = drawn(outputs) if bias else None
    divisor = 1 + torch.rand(outputs, device=DEVICE) if divided else None
    stream = drawn(rows + 1, outputs) if onto else None
    before = None if stream is None else stream.clone()
    with torch.no_grad():
        got = product(
            x,
            weight,
            norm=module,
            bias=added,
            activation=activation,
            divisor=divisor,
            onto=None if stream is None else stream[:rows],
        )
        wanted = expected(x, weight, module, added, activation, divisor)
    if stream is not None and before is not None:
        assert got.data_ptr() == stream.data_ptr()
        wanted = wanted + before[:rows].double()
        assert torch.equal(stream[rows], before[rows])  # nothing is written beyond its rows
    assert got.shape == (rows, outputs)
    assert far(got, wanted) < TOLERANCE


@pytest.mark.parametrize("rows", [1, 3])
def test_parts_of_a_product_read_each_an_x_of_their_own(poisoned: None, rows: int) -> None:
    from operators.kernels.products import product

    torch.manual_seed(rows)
    x, weight = (torch.randn(*size, device=DEVICE).to(DTYPE) for size in ((3, rows, 40), (70, 40)))
    got = product(x, weight, parts=(17, 50, 3))
    pairs = zip(x.double(), weight.double().split([17, 50, 3]), strict=True)
    assert far(got, torch.cat([part @ matrix.T for part, matrix in pairs], -1)) < TOLERANCE


@pytest.mark.parametrize("vocabulary", [3, 2048, 5000])
def test_choice_is_the_first_of_the_largest_logits(vocabulary: int) -> None:
    from operators.kernels.choice import choose

    torch.manual_seed(0)
    logits = torch.randn(4, vocabulary, device=DEVICE).to(DTYPE)
    logits[1] = 2.0
    logits[2, -1] = 50.0
    logits[3] = float("nan")  # a token that has a row in the embedding must come out all the same
    tokens = torch.full((4,), -1, device=DEVICE)
    position = torch.tensor([0, 5, 7, 9], device=DEVICE)
    choose(logits, tokens, position)
    assert tokens[:3].tolist() == [int(logits[0].float().argmax()), 0, vocabulary - 1]
    assert 0 <= int(tokens[3]) < vocabulary
    assert position.tolist() == [1, 6, 8, 10]
