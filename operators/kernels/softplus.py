"""Part of kernels: log(1 + exp(x)), which step sizes and decays pass through."""

import triton
import triton.language as tl


@triton.jit
def softplus(x):
    """x itself where it is large: exp(x) could be too large for float32. PyTorch has the same bound."""
    return tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x)))
