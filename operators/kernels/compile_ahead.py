"""Compiles Triton kernels in parallel, before they are run.

Left alone, Triton compiles a kernel when it is first launched, and the launch waits for it: dozens of kernels and configurations one after
the other, on one core. Under `compiling_ahead` nothing is launched. Every launch only names what it would need, and all of that is compiled
at the same time. The same calls once more then find everything ready.
"""

import importlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def compiling_ahead(threads: int | None = None) -> Iterator[None]:
    """Inside, launches of Triton kernels compute nothing: their outputs hold what was in memory. At the end every one, in each of its
    configurations, is compiled; what does not compile is left to its launch to report. threads: as many as there are cores if None.

    For the whole process, other threads included: autograd launches from its own. Raises ImportError without Triton.
    """
    asynchronous = importlib.import_module("triton.runtime._async_compile")
    function = importlib.import_module("triton.runtime.jit").JITFunction
    autotuner = importlib.import_module("triton.runtime.autotuner").Autotuner
    compile_or_launch, tune_and_launch = function.run, autotuner.run
    with (
        ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool,
        asynchronous.AsyncCompileMode(pool, ignore_errors=True) as mode,
    ):

        def compile_only(self: Any, *args: Any, **kwargs: Any) -> Any:
            token = asynchronous.active_mode.set(mode)  # a thread of autograd's does not inherit it
            try:
                return compile_or_launch(self, *args, **{**kwargs, "warmup": True})
            finally:
                asynchronous.active_mode.reset(token)

        def compile_each_configuration(self: Any, *args: Any, **kwargs: Any) -> None:
            self.nargs = dict(zip(self.arg_names, args, strict=False))
            for config in self.prune_configs(kwargs):
                self.best_config = config  # which libraries ask for after a launch
                self.fn.run(*args, **{**kwargs, **config.all_kwargs()})
            self.nargs = None

        function.run, autotuner.run = compile_only, compile_each_configuration
        try:
            yield
        finally:
            function.run, autotuner.run = compile_or_launch, tune_and_launch
