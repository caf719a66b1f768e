"""Benchmark: the table of Nemotron-Flash's deployment on our runtime.

Nemotron-Flash (arXiv 2511.18890) compares ten models on an H100, the models of others in stock engines. One
runtime for all ten shows how much of the differences comes from the architectures.

    frontrunner bench deployment --device cuda:0

Latency: one decode step with 8192 tokens of context, batch 1. Throughput: tokens decoded in a second with
32,768 tokens of context, at the largest batch that fits. Published are the seconds for decoding 8192 tokens,
and tokens per second with 32k of input. The two are compared as ratios to Nemotron-Flash-1B.
"""

from typing import Any

from rich.console import Console

from operators import Architecture
from operators.base.errors import FrontrunnerError
from profiler.device.lock import shared
from profiler.process.worker import ProfilingWorker
from profiler.profile import ProfileSettings
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.tables import Column, by_model
from search.view.terminal_tables import show

PUBLISHED = {  # seconds, tokens/s
    "nemotron-flash-1b": (14.45, 7289),
    "nemotron-flash-3b": (28.71, 2939),
    "llama-3.2-1b": (21.44, 932),
    "llama-3.2-3b": (45.47, 173),
    "qwen2.5-0.5b": (22.81, 2382),
    "qwen2.5-1.5b": (34.50, 687),
    "qwen2.5-3b": (49.40, 459),
    "qwen3-0.6b": (27.55, 160),
    "qwen3-1.7b": (36.20, 157),
    "smollm2-1.7b": (31.11, 151),
}
FIRST = "nemotron-flash-1b"
LATENCY_CONTEXT, THROUGHPUT_CONTEXT = 8192, 32_768
DEADLINE_S = 600.0
_SAMPLING: dict[str, Any] = {"warmup": 1, "min_samples": 10, "min_seconds": 0.3, "max_seconds": 1.0}
LATENCY = ProfileSettings(contexts=(LATENCY_CONTEXT,), batch_sizes=(1,), **_SAMPLING)
THROUGHPUT = ProfileSettings(contexts=(THROUGHPUT_CONTEXT,), batch_sizes=(), largest_batch=True, **_SAMPLING)

_COLUMNS = {
    "decode [ms]": Column("decode_ms", ".3f", timed=True),
    "ratio": Column("latency_ratio", ".2f", timed=True),
    "published": Column("published_latency_ratio", ".2f"),
    "rows": Column("largest_batch", "d"),
    "tokens/s": Column("throughput_tokens_per_s", ".0f", timed=True),
    "its ratio": Column("throughput_ratio", ".3f", timed=True),
    "published of it": Column("published_throughput_ratio", ".3f"),
}


def deploy(device: str, console: Console) -> Measured:
    """Latency, throughput and ratios of each model, and every profile."""
    figures: Figures = {}
    profiles: list[dict[str, Any]] = []
    with ProfilingWorker(device) as worker:
        with shared(device):
            worker.start()
        for name in PUBLISHED:
            try:
                both = [
                    worker.profile(Architecture.load(name), settings, deadline_s=DEADLINE_S)
                    for settings in (LATENCY, THROUGHPUT)
                ]
            except FrontrunnerError as error:
                figures[f"{name}.failed"] = str(error)
                console.print(f"{name}: {error}", soft_wrap=True)
                continue
            latency, throughput = both
            largest = throughput.largest[0]
            figures |= {
                f"{name}.decode_ms": latency.points[0].decode.median_ms,
                f"{name}.tainted": "; ".join((*latency.tainted, *throughput.tainted)),
                f"{name}.largest_batch": largest.batch,
                f"{name}.throughput_tokens_per_s": largest.tokens_per_s,
            }
            profiles += [{"model": name, **profile.model_dump(mode="json")} for profile in both]
            decode_ms = latency.points[0].decode.median_ms
            console.print(
                f"{name}: {decode_ms:.4g} ms, {largest.batch} rows, {largest.tokens_per_s:.5g} tokens/s",
                soft_wrap=True,
            )
    figures |= _ratios(figures)
    show(console, by_model(figures, PUBLISHED, _COLUMNS))
    return Measured(figures, profiles)


def _ratios(figures: Figures) -> Figures:
    """Each model to the first, as measured and as published."""
    ratios: Figures = {}
    for name, (seconds, tokens_per_s) in PUBLISHED.items():
        if f"{name}.decode_ms" not in figures or f"{FIRST}.decode_ms" not in figures:
            continue
        ratios |= {
            f"{name}.latency_ratio": float(figures[f"{name}.decode_ms"])
            / float(figures[f"{FIRST}.decode_ms"]),
            f"{name}.published_latency_ratio": seconds / PUBLISHED[FIRST][0],
            f"{name}.throughput_ratio": float(figures[f"{name}.throughput_tokens_per_s"])
            / float(figures[f"{FIRST}.throughput_tokens_per_s"]),
            f"{name}.published_throughput_ratio": tokens_per_s / PUBLISHED[FIRST][1],
        }
    return ratios


BENCHMARK = Benchmark("deployment", "Nemotron-Flash's table of ten models on our runtime", deploy)
