"""Kernel libraries: when they can be used, and how their kernels are compiled and tuned. Our own kernels."""
