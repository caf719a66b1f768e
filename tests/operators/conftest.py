"""Imports Triton so that its interpreter can run kernels, before a test file imports it in another way."""

import os
from importlib.util import find_spec

import torch

INTERPRETED = "TRITON_INTERPRET"

if find_spec("triton") is not None and not torch.cuda.is_available():
    # Triton reads it when it is imported, for its own functions as well, and when a kernel is.
    os.environ[INTERPRETED] = "1"
    import triton.language  # noqa: F401

    del os.environ[INTERPRETED]
