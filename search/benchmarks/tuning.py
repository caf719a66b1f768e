"""Which configurations of the libraries' kernels are worth trying on this GPU: every one is timed.

Beside the record lies what `operators/tuned/` holds for the GPU's architecture, as in `sm_90.json`: copy it there. `slowdown_before`
tells what the configurations that are there so far cost, where that is more than 5 %.
"""

import json
from math import isfinite
from typing import Any

import torch
from rich.console import Console

from operators import registry
from operators.architecture import Architecture, Layer
from operators.errors import DeviceError
from operators.kernel_libraries import tuned
from profiler.device import open_device
from profiler.tuning import TOLERANCE, choose, measure_configurations, slowdown
from profiler.warm import Workload, jobs

WIDTH = 1024
WORKLOAD = Workload(training=((4, 2048),), decoding=((4, 2048),))
HEAD_DIMS = (64, 128)


def tune(device: str, console: Console) -> tuple[dict[str, float | int | str], Any, dict[str, bytes]]:
    """Figures, all timings (None: does not run), and the file for `operators/tuned/`. Raises DeviceError without a GPU."""
    opened = open_device(device)
    if opened.torch_device.type != "cuda":
        raise DeviceError(
            f"device {device}: the benchmark tuning times GPU kernels and needs a GPU, as in cuda:0"
        )
    layers = []
    for name in [name for name in registry.names() if len(registry.get(name).backends) > 1]:
        shape = registry.get(name).shape
        with_heads = "head_dim" in registry.get(name).genes
        for genes in [{"head_dim": size} for size in HEAD_DIMS] if with_heads else [{}]:
            layers.append(Layer(operator=name, shape=shape.make(WIDTH, **genes)))
    architecture = Architecture(width=WIDTH, vocabulary=2, layers=tuple(layers))
    timings = measure_configurations(jobs([architecture], WORKLOAD, opened.label))
    chosen = choose(timings)
    major, minor = torch.cuda.get_device_capability(opened.torch_device)
    figures: dict[str, float | int | str] = {
        "architecture": f"sm_{major}{minor}",
        "kernels": len(chosen),
        "configurations_tried": sum(max(map(len, timings[kernel])) for kernel in chosen),
        "configurations_kept": sum(map(len, chosen.values())),
        "slowdown_kept": max(slowdown(timings, chosen).values(), default=0.0),
    }
    figures |= {
        f"slowdown_before.{kernel}": lost if isfinite(lost) else "none of them runs"
        for kernel, lost in slowdown(timings, tuned(f"sm_{major}{minor}")).items()
        if lost > TOLERANCE
    }
    for name, value in figures.items():
        console.print(f"{name:<24}{value}")
    kept = {"measured_on": opened.name, "versions": opened.versions(), "kernels": chosen}
    samples = {
        kernel: [[(config, ms if isfinite(ms) else None) for config, ms in case] for case in cases]
        for kernel, cases in timings.items()
    }
    return figures, samples, {"tuned.json": (json.dumps(kept, indent=1) + "\n").encode()}
