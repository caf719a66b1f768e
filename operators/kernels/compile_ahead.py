"""Compiles Triton kernels in parallel, before they are run.

By itself Triton compiles a kernel when it is first launched, and the launch waits: dozens of kernels and
configurations one after the other, on one core. Within `compiling_ahead` nothing is launched. A launch
only notes what it would need, and all of that is compiled in parallel. The same calls made once more
then find everything ready.
"""

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from operators.base.threads import usable_cores


class _LeftToAnother(Exception):  # noqa: N818 - nothing went wrong
    """Another process compiles this kernel."""


@dataclass
class Launches:
    """What work launched, as digests. The kernels are compiled when the work has ended.

    kernels: one for each kernel in each configuration, as Triton's cache names it
    cases: one for each case in which Triton keeps the fastest of several configurations. It finds that
        configuration when the kernel is launched, and only then.
    failed: the kernels that could not be compiled. Launching them tells why.
    """

    kernels: set[str] = field(default_factory=set)
    cases: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)


@contextmanager
def compiling_ahead(
    threads: int | None = None,
    *,
    claims: Path | None = None,
) -> Iterator[Launches]:
    """Inside, launches of Triton kernels compute nothing; at the end each configuration is compiled.

    It gives a `Launches`, which the launches fill in. Outputs of such launches hold what was in memory. All
    threads of the process are concerned, as autograd launches kernels from its own.

    threads: how many compile; None for one per core.
    claims: a folder in which processes note what they compile. What another process has noted is left to it.

    Raises ImportError without Triton.
    """
    asynchronous = importlib.import_module("triton.runtime._async_compile")
    function = importlib.import_module("triton.runtime.jit").JITFunction
    autotuner = importlib.import_module("triton.runtime.autotuner").Autotuner
    compile_or_launch, tune_and_launch = function.run, autotuner.run
    launches = Launches()

    class Mode(asynchronous.AsyncCompileMode):  # type: ignore[name-defined]
        def submit(self, key: str, compile_kernel: Callable[[], Any], *then: Callable[[Any], None]) -> Any:
            """then: is called afterwards; one function in Triton 3.6, two in 3.9"""
            launches.kernels.add(digest := _digest(key))

            def compile_once() -> Any:
                if claims is not None and not _claimed(claims / digest):
                    raise _LeftToAnother
                try:
                    return compile_kernel()
                except Exception:
                    launches.failed.add(digest)
                    raise

            return super().submit(key, compile_once, *then)

    with (
        ThreadPoolExecutor(threads or len(usable_cores())) as pool,
        Mode(pool, ignore_errors=True) as mode,
    ):

        def compile_only(self: Any, *args: Any, **kwargs: Any) -> Any:
            token = asynchronous.active_mode.set(mode)  # autograd's threads do not inherit the mode
            try:
                return compile_or_launch(self, *args, **{**kwargs, "warmup": True})
            finally:
                asynchronous.active_mode.reset(token)

        def compile_each_configuration(self: Any, *args: Any, **kwargs: Any) -> None:
            self.nargs = dict(zip(self.arg_names, args, strict=False))
            tried = self.prune_configs(kwargs)
            if len(tried) > 1:
                launches.cases.add(_digest(_case(self, {**self.nargs, **kwargs})))
            for config in tried:
                self.best_config = config  # libraries read it after a launch
                self.fn.run(*args, **{**kwargs, **config.all_kwargs()})
            self.nargs = None

        function.run, autotuner.run = compile_only, compile_each_configuration
        try:
            yield launches
        finally:
            function.run, autotuner.run = compile_or_launch, tune_and_launch


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _claimed(path: Path) -> bool:
    """Whether this call is the first of all processes to make the file."""
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True


def _case(autotuner: Any, arguments: dict[str, Any]) -> str:
    """What Triton keeps the fastest configuration by: the arguments that its author named, and dtypes."""
    own = {name: value for name, value in arguments.items() if name in autotuner.arg_names}
    named = [own[name] for name in autotuner.keys if name in own]
    return repr(
        (
            autotuner.base_fn.__name__,
            named,
            [str(value.dtype) for value in own.values() if hasattr(value, "dtype")],
        )
    )
