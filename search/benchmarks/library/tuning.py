"""Benchmark: which configurations of the libraries' kernels are worth trying on this GPU.

Triton's autotuner tries every configuration of a kernel at each new shape, which takes minutes. Few
configurations are ever best, and trying those alone takes seconds. Here every one is timed.

    frontrunner bench tuning --device cuda:0

Beside the record lies the file for the GPU's architecture, as `sm_90.json`: copy it to
`operators/kernels/tuned/`. `slowdown_before` is the cost of the configurations that lie there so far, where
it is more than 5 %.
"""

import json
from math import isfinite

import torch
from rich.console import Console

from operators import registry
from operators.architecture import Architecture, Layer
from operators.kernels.libraries import tuned
from profiler.device.device import open_device
from profiler.kernels.tuning import TOLERANCE, choose, measure_configurations, slowdown
from profiler.kernels.warm import Workload, jobs
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.tables import print_figures

WIDTH = 1024
WORKLOAD = Workload(training=((4, 2048),), decoding=((4, 2048),))
HEAD_DIMS = (64, 128)


def tune(device: str, console: Console) -> Measured:
    """Cost of the choice, all timings (None: does not run), and the file for `operators/kernels/tuned/`."""
    opened = open_device(device)
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
    figures: Figures = {
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
    print_figures(console, figures)
    kept = {"measured_on": opened.name, "versions": opened.versions(), "kernels": chosen}
    samples = {
        kernel: [[(config, ms if isfinite(ms) else None) for config, ms in case] for case in cases]
        for kernel, cases in timings.items()
    }
    return Measured(figures, samples, {"tuned.json": (json.dumps(kept, indent=1) + "\n").encode()})


BENCHMARK = Benchmark(
    "tuning", "which configurations of the libraries' kernels are worth trying on this GPU", tune, gpu=True
)
