"""Kernel libraries and our own kernels: when they can be used, how they are compiled and tuned."""
