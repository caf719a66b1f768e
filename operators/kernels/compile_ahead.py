"""Compiles Triton kernels in parallel, before they are run.

By itself Triton compiles a kernel when it is first launched, and the launch waits: dozens of kernels and
configurations one after the other, on one core. Within `compiling_ahead` nothing is launched. A launch
only notes what it would need, and all of that is compiled in parallel. The same calls made once more
then find everything ready.
"""

import importlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def compiling_ahead(threads: int | None = None) -> Iterator[None]:
    """Inside, launches of Triton kernels compute nothing; at the end each configuration is compiled.

    Outputs of such launches hold what was in memory. An error of compilation is left for the real launch to
    report. This holds for the whole process with all its threads, as autograd launches kernels from its own.

    threads: that compile; None for one a core.

    Raises ImportError without Triton.
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
            token = asynchronous.active_mode.set(mode)  # autograd's threads do not inherit the mode
            try:
                return compile_or_launch(self, *args, **{**kwargs, "warmup": True})
            finally:
                asynchronous.active_mode.reset(token)

        def compile_each_configuration(self: Any, *args: Any, **kwargs: Any) -> None:
            self.nargs = dict(zip(self.arg_names, args, strict=False))
            for config in self.prune_configs(kwargs):
                self.best_config = config  # libraries read it after a launch
                self.fn.run(*args, **{**kwargs, **config.all_kwargs()})
            self.nargs = None

        function.run, autotuner.run = compile_only, compile_each_configuration
        try:
            yield
        finally:
            function.run, autotuner.run = compile_or_launch, tune_and_launch
