"""Models that others published: their configuration in our terms, and which of their tensors each of our parameters is."""

from operators.published.families import Published, describe
from operators.published.weights import fitted, remark_on_steps

__all__ = ["Published", "describe", "fitted", "remark_on_steps"]
