"""Lets something be done around each compilation of a Triton kernel, and around other waits for kernels."""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

_context: Callable[[], AbstractContextManager[None]] = nullcontext


def waiting() -> AbstractContextManager[None]:
    """The context of `compile_inside`, for a wait that needs no device either; it is empty without one."""
    return _context()


@cache  # once in a process
def compile_inside(context: Callable[[], AbstractContextManager[None]]) -> None:
    """From now on Triton compiles each kernel inside of `context()`, in the thread that launches the kernel.

    So it is for kernels that Triton finds on the disk. Nothing is done around compilations without Triton 3.4
    or newer.
    """
    global _context
    _context = context
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
