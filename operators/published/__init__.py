"""Published models: their configuration as an architecture, and their tensors as our parameters."""

from operators.published.families import Published, describe
from operators.published.weights import fitted, remark_on_steps

__all__ = ["Published", "describe", "fitted", "remark_on_steps"]
