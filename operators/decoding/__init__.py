"""Decode steps of whole layers in our own Triton kernels. See `fused.py`."""
