"""Lets something be done around each compilation of a Triton kernel."""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any


@cache  # once in a process
def compile_inside(context: Callable[[], AbstractContextManager[None]]) -> None:
    """From now on Triton compiles each kernel inside of `context()`, in the thread that launches the kernel.

    So it is for kernels that Triton finds on the disk. Does nothing without Triton 3.4 or newer.
    """
    try:
        function: Any = importlib.import_module("triton.runtime.jit").JITFunction
    except ImportError:
        return
    if not hasattr(function, "_do_compile"):
        return
    compile_kernel = function._do_compile

    def compile_kernel_inside(self: Any, *args: Any, **kwargs: Any) -> Any:
        with context():
            return compile_kernel(self, *args, **kwargs)

    function._do_compile = compile_kernel_inside
