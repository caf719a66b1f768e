"""How long an operator's kernels take to be ready for forward, backward and a decode step: at a new shape, and at a known one.

New: nothing was ever compiled (the kernels' cache is an empty folder), every operator in a process of its own, all at the same time on all
cores. Known: the same in fresh processes once more. Seconds leave out what comes before the first kernel, importing libraries and opening
the device, which is given beside them.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console

from operators import registry
from operators.architecture import Architecture, Layer
from profiler.device import open_device
from profiler.warm import Job, Warmed, Workload, jobs, warm

WIDTH = 1536
WORKLOAD = Workload(training=((4, 2048),), decoding=((4, 2048),))


def warm_everything(
    device: str, console: Console
) -> tuple[dict[str, float | int | str], list[dict[str, Any]]]:
    """Figures, and what was measured of each operator."""
    work = _work(open_device(device).label)
    figures: dict[str, float | int | str] = {"cores": os.cpu_count() or 1, "operators": len(work)}
    samples: list[dict[str, Any]] = []
    with _empty_cache():
        for kind in ("new", "known"):
            found = sorted(warm(work), key=lambda warmed: warmed.operator)
            samples += [{"kind": kind, **asdict(warmed)} for warmed in found]
            figures |= {f"{kind}.{warmed.operator}_s": warmed.seconds for warmed in found}
            figures |= {f"{kind}_longest_s": max(warmed.seconds for warmed in found)}
            figures |= {f"{kind}_longest_start_s": max(warmed.start_s for warmed in found)}
            for warmed in found:
                console.print(_described(kind, warmed), soft_wrap=True)
    return figures, samples


def _work(device: str) -> list[Job]:
    """Every operator that has a library's kernels, at its default shape."""
    names = [name for name in registry.names() if len(registry.get(name).backends) > 1]
    layers = tuple(Layer(operator=name, shape=registry.get(name).shape.make(WIDTH)) for name in names)
    return jobs([Architecture(width=WIDTH, vocabulary=2, layers=layers)], WORKLOAD, device)


def _described(kind: str, warmed: Warmed) -> str:
    return f"{kind:<6}{warmed.operator:<16}{warmed.backend:<14}{warmed.seconds:7.2f} s, start {warmed.start_s:5.1f} s  {warmed.problem}"


@contextmanager
def _empty_cache() -> Iterator[None]:
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="frontrunner-kernels-") as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before
