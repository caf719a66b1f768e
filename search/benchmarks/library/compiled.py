"""Benchmark: decoding of every published model in our runtime and in transformers, compiled.

In transformers, decoding is fastest with `torch.compile`, in its mode reduce-overhead, and a cache of fixed
size. Each model is measured in our runtime and, through its exported folder, in transformers. Weights
are random.

    pip install transformers
    frontrunner bench compiled --device cuda:0

One row decodes with 8192 tokens of context and with 160. A model whose class transformers does not have, or
runs eagerly, has no figure of transformers: `transformers_refused` says why.
"""

from collections.abc import Sequence

from rich.console import Console

from operators import Architecture
from operators.base import shipped
from profiler.device.names import TRANSFORMERS
from profiler.engines.in_transformers import COMPILED
from profiler.metrics import key
from profiler.profile import ProfileSettings
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.library.decode import OURS
from search.benchmarks.library.engines import sample
from search.benchmarks.tables import Column, by_model
from search.view.profiles import Profiled, profile_each, tell
from search.view.terminal_tables import show

LONG, SHORT = 8192, 160  # tokens of context, as in `bench decode`
SETTINGS = ProfileSettings(batch_sizes=(1,), contexts=(LONG, SHORT), max_seconds=2.0)
# What begins the names of a context's figures -> the metric that a profile has of it.
_METRICS = {"": key("decode_ms", batch=1), "short_": key("decode_ms", batch=1, context=SHORT)}
_COLUMNS = {
    "ours [ms]": Column("decode_ms", ".3f", timed=True),
    "transformers [ms]": Column("transformers_ms", ".3f", timed=True),
    "faster ×": Column("speedup", ".2f"),
    "160 tokens, ours [ms]": Column("short_decode_ms", ".3f", timed=True),
    "transformers [ms], 160 tokens": Column("short_transformers_ms", ".3f", timed=True),
    "faster ×, 160 tokens": Column("short_speedup", ".2f"),
}


def beside_transformers(device: str, console: Console) -> Measured:
    """Steps of every published model in both, and how many times faster ours are."""
    models = [name for name in shipped.names("architecture") if name not in OURS]
    results = profile_each(
        [(name, Architecture.load(name)) for name in models],
        SETTINGS,
        device=device,
        backend="auto",
        engines=(TRANSFORMERS,),
        on_measured=tell(console),
    )
    figures: Figures = {"batch": 1, "context_tokens": LONG, "short_context_tokens": SHORT} | compared(results)
    show(console, by_model(figures, models, _COLUMNS))
    return Measured(figures, [sample(result) for result in results])


def compared(results: Sequence[Profiled]) -> Figures:
    """The figures of each model: those in our runtime, and in transformers where it was compiled."""
    figures: Figures = {}
    ours = {result.title: result for result in results if not result.engine}
    for result in results:
        theirs = result.engine == TRANSFORMERS
        name, profile = result.title, result.profile
        how = profile.backends[TRANSFORMERS] if profile and theirs else ""
        if profile is None or (theirs and COMPILED not in how):
            figures[f"{name}.{'transformers_' if theirs else ''}refused"] = result.problem or how
            continue
        if reasons := [reason for metric, reason in profile.taints().items() if metric in _METRICS.values()]:
            figures[f"{name}.tainted"] = reasons[0]
        for prefix, metric in _METRICS.items():
            taken = profile.metrics()[metric]
            figures[f"{name}.{prefix}{'transformers' if theirs else 'decode'}_ms"] = taken
            if theirs and (own := ours[name].profile):
                figures[f"{name}.{prefix}speedup"] = taken / own.metrics()[metric]
    return figures


BENCHMARK = Benchmark(
    "compiled",
    "decoding of every published model here and in transformers with torch.compile",
    beside_transformers,
    needs={"transformers": "pip install transformers"},
    gpu=True,
)
