"""Makes `transformers` use its definitions in plain PyTorch where kernel libraries are installed too."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

KERNEL_LIBRARIES = ("fla", "mamba_ssm", "causal_conv1d")


@contextmanager
def plain_definitions() -> Iterator[None]:
    """Inside, `transformers` finds no kernel library when it imports the code of a model.

    It looks for them once, then calls their kernels for tensors on the CPU too, where they cannot run. So
    every test that makes a model of `transformers` makes it in here: the first one decides for the process.
    """
    before = {name: sys.modules[name] for name in KERNEL_LIBRARIES if name in sys.modules}
    for name in KERNEL_LIBRARIES:
        sys.modules[name] = None  # type: ignore[assignment]  # makes `import` fail
    try:
        yield
    finally:
        for name in KERNEL_LIBRARIES:
            del sys.modules[name]
        sys.modules.update(before)
