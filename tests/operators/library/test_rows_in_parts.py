"""Mamba2 and Mamba3 where a library's kernels cannot address all rows of a batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from operators import Architecture, HybridLM
from operators.library import mamba2, mamba3


@pytest.mark.parametrize("symbol", ["m", "m3"])
def test_rows_are_read_in_parts_where_addresses_would_not_fit(
    monkeypatch: pytest.MonkeyPatch, symbol: str
) -> None:
    model, tokens = (
        HybridLM(Architecture.from_shorthand(f"{symbol} f", width=32, vocabulary=50)),
        torch.randint(50, (5, 21)),
    )
    expected, whole, parts = model(tokens), model.allocate_state(5, 40), model.allocate_state(5, 40)
    model.prefill(tokens[:, :9], whole)
    last = model.prefill(tokens[:, 9:], whole)
    sizes: list[int] = []
    operator = model.layers[0].operator
    kernels = operator.ssd if symbol == "m" else operator.trapezoid

    def counted(x: Tensor, *rest: Any) -> Any:
        sizes.append(len(x))
        return kernels.scan(x, *rest)

    module = mamba2 if symbol == "m" else mamba3
    of_token = operator.in_proj.out_features if symbol == "m" else operator.shape.largest_of_token
    monkeypatch.setattr(module, "LARGEST_INDEX", 2 * 21 * of_token)
    name = "ssd" if symbol == "m" else "trapezoid"
    monkeypatch.setattr(operator, name, replace(kernels, scan=counted))
    torch.testing.assert_close(model(tokens), expected)
    assert sizes == [2, 2, 1]
    model.prefill(tokens[:, :9], parts)
    torch.testing.assert_close(model.prefill(tokens[:, 9:], parts), last)
    torch.testing.assert_close(parts.layers[0], whole.layers[0])
