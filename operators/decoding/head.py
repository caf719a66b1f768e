"""The fused end of a decode step: three kernels."""

from operators.kernels.choice import choose
from operators.kernels.products import product
from operators.operator import FusedHead

HEAD = FusedHead(product, choose)
