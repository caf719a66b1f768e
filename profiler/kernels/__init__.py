"""Compiles and tunes kernels before they are measured."""
