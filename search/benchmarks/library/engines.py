"""Benchmark: does a model that is faster here stay faster in engines of others?

A search decides by times in our own runtime, and its winners are exported to others. Twelve models are drawn
at random from a space that llama.cpp and transformers hold. Each is measured here and, through its exported
file with random weights, in the engines. On a CPU these are llama.cpp at Q8_0 and transformers; on a GPU
transformers, compiled where its class allows it. Ranks are compared by Spearman's ρ and Kendall's τ.

    pip install transformers xllamacpp gguf
    frontrunner bench engines --device cpu

The CPU's space is that of configs/laptop.yaml, and the GPU's has its layers with larger widths. Measurements
that cannot be trusted are left out.
"""

from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console

from operators import Architecture
from operators.base.errors import DeviceError
from profiler.device.device import open_device
from profiler.device.names import LLAMA_CPP, TRANSFORMERS
from profiler.engines.packages import require_engine
from profiler.profile import ProfileSettings
from profiler.table.validate import kendall_tau
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.config.run import load
from search.spaces.staged import make_space
from search.view.profiles import Profiled, print_profiles, profile_each, tell

MODELS, SEED = 12, 0
LEAST = 5  # models: the ranks of fewer show nothing
ENGINES = {"cpu": (LLAMA_CPP, TRANSFORMERS), "cuda": (TRANSFORMERS,)}
SETTINGS = {
    "cpu": ProfileSettings(batch_sizes=(1, 4), contexts=(128,), max_seconds=1.0),
    "cuda": ProfileSettings(batch_sizes=(1, 4), contexts=(1024,), max_seconds=2.0),
}
# What the space of configs/laptop.yaml has otherwise where a GPU is to be kept busy.
LARGE = {"widths": (512, 1024, 1536, 2048), "min_depth": 8, "max_depth": 16}
VOCABULARY = {"cpu": 4096, "cuda": 32_768}


def ranks_in_engines(device: str, console: Console) -> Measured:
    """Rank correlations of each metric in each engine with ours, and how long the engine takes."""
    kind = open_device(device).torch_device.type
    require_engines(kind)
    results = measured_here_and_there(drawn(kind, MODELS), device, console)
    figures: Figures = {"models": MODELS, "seed": SEED, "context_tokens": SETTINGS[kind].contexts[0]}
    for engine in ENGINES[kind]:
        for metric in metrics_of(SETTINGS[kind]):
            figures |= compared(results, engine, metric)
    if not any(name.endswith(".kendall") for name in figures):
        raise DeviceError(
            f"device {device}: expected at least {LEAST} models to be measured well here and in an engine, "
            "got fewer; try again when it is quiet"
        )
    for name, value in figures.items():
        console.print(f"{name}: {value}", soft_wrap=True, markup=False)
    return Measured(figures, [sample(result) for result in results])


def require_engines(kind: str) -> None:
    """Raises DeviceError where an engine that measures on that kind of device is not installed."""
    for engine in ENGINES[kind]:
        require_engine(engine)


def measured_here_and_there(
    models: Sequence[tuple[str, Architecture]], device: str, console: Console
) -> list[Profiled]:
    """Measures models in our own runtime and in each engine on the device, and prints what they take.

    models: (name, architecture) of each.
    """
    kind = open_device(device).torch_device.type
    results = profile_each(
        models,
        SETTINGS[kind],
        device=device,
        backend="auto",
        engines=ENGINES[kind],
        on_measured=tell(console),
    )
    print_profiles(console, results)
    return results


def drawn(kind: str, count: int) -> list[tuple[str, Architecture]]:
    """Architectures drawn at random, no two alike, each with its name.

    kind: of the device, `cpu` or `cuda`.
    """
    settings = load(Path("laptop")).space
    if kind == "cuda":
        settings = settings.model_copy(update=LARGE)
    space, rng = make_space(settings, VOCABULARY[kind]), np.random.default_rng(SEED)
    models: list[Architecture] = []
    while len(models) < count:
        model = space.sample(rng)
        if model not in models:
            models.append(model)
    return [(f"model {number}", model) for number, model in enumerate(models)]


def metrics_of(settings: ProfileSettings) -> list[str]:
    return [f"{name}@b{batch}" for name in ("decode_ms", "prefill_ms") for batch in settings.batch_sizes]


def compared(results: Sequence[Profiled], engine: str, metric: str) -> Figures:
    """The figures of one metric in an engine beside ours, over the models that both measured well.

    Where these are fewer than LEAST, their number is the only figure.
    """
    from scipy import stats  # takes a second to import

    ours, theirs = (_values(results, name, metric) for name in ("", engine))
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < LEAST:
        return {f"{engine}.{metric}.models": len(both)}
    here, there = ([values[title] for title in both] for values in (ours, theirs))
    params = {result.title: result.profile.params for result in results if result.profile}
    return {
        f"{engine}.{metric}.models": len(both),
        f"{engine}.{metric}.spearman": float(stats.spearmanr(here, there).statistic),
        f"{engine}.{metric}.kendall": kendall_tau(here, there),
        f"{engine}.{metric}.params_kendall": kendall_tau([params[title] for title in both], there),
        f"{engine}.{metric}.of_ours": exp(
            mean(log(one / other) for one, other in zip(there, here, strict=True))
        ),
    }


def _values(results: Sequence[Profiled], engine: str, metric: str) -> dict[str, float]:
    """The metric of every model that the engine measured well, by the model's name."""
    return {
        result.title: result.profile.metrics()[metric]
        for result in results
        if result.engine == engine and result.profile and metric not in result.profile.taints()
    }


def sample(result: Profiled) -> dict[str, Any]:
    """A measurement as a record holds it."""
    if result.profile is None:
        return {"model": result.title, "engine": result.engine, "problem": result.problem}
    profile = result.profile
    return {
        "model": result.title,
        "engine": result.engine,
        "metrics": profile.metrics(),
        "errors": profile.errors(),
        "taints": profile.taints(),
        "dtype": profile.dtype,
        "backends": dict(profile.backends),
        "versions": dict(profile.versions),
    }


BENCHMARK = Benchmark(
    "engines",
    "does a model that is faster here stay faster in llama.cpp and transformers?",
    ranks_in_engines,
    needs={"transformers": "pip install transformers"},
)
