"""Rotary positions as frozen values; `operators.layers.rope` computes with them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from operators.base.value import Value


class RopeScaling(Value):
    """How Llama 3.1 stretches rotary positions: slow frequencies are divided by a factor, fast ones are kept.

    kind: the only kind there is.
    factor: that slow frequencies are divided by.
    low: a frequency is slow if it turns less often than this within the original context.
    high: a frequency is fast if it turns more often than this; one between is a mixture of both.
    original_context: tokens that the model was first trained on.
    """

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low: float = Field(default=1.0, gt=0)
    high: float = Field(default=4.0, gt=0)
    original_context: int = Field(default=8192, ge=1)

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"expected low below high, got low {self.low:g} and high {self.high:g}")
        return self


class Rope(Value):
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864).

    theta: the base of the frequencies.
    scaling: how positions are stretched; None for not at all.
    """

    theta: float = Field(default=10_000.0, gt=0)
    scaling: RopeScaling | None = None
