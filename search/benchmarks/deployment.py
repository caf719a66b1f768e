"""The table of Nemotron-Flash's deployment on our runtime: ten models, decoding at batch 1 and at the largest batch that fits.

Latency: one decode step with 8192 tokens of context, batch 1. Throughput: tokens decoded in a second with 32,768 tokens of context, at the
largest batch that fits. Published (arXiv 2511.18890): seconds for decoding 8192 tokens and tokens per second with 32k of input, on an H100
with stock engines for the others' models. The two are compared as ratios to Nemotron-Flash-1B.
"""

from typing import Any

from rich.console import Console

from operators import Architecture
from operators.errors import FrontrunnerError
from profiler.lock import shared
from profiler.profile import ProfileSettings
from profiler.worker import ProfilingWorker
from search.tables import MARK, taint_notes
from search.terminal_tables import Sheet, sheet, show

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

Figures = dict[str, float | int | str]


def deploy(device: str, console: Console) -> tuple[Figures, list[dict[str, Any]]]:
    """Figures, and every profile; a line of the table for each model."""
    figures: Figures = {}
    profiles: list[dict[str, Any]] = []
    with ProfilingWorker(device) as worker:
        with shared(device):
            worker.start()
        for name in PUBLISHED:
            try:
                found = [
                    worker.profile(Architecture.load(name), settings, deadline_s=DEADLINE_S)
                    for settings in (LATENCY, THROUGHPUT)
                ]
            except FrontrunnerError as error:
                figures[f"{name}.failed"] = str(error)
                console.print(f"{name}: {error}", soft_wrap=True)
                continue
            latency, throughput = found
            largest = throughput.largest[0]
            figures |= {
                f"{name}.decode_ms": latency.points[0].decode.median_ms,
                f"{name}.tainted": "; ".join((*latency.tainted, *throughput.tainted)),
                f"{name}.largest_batch": largest.batch,
                f"{name}.throughput_tokens_per_s": largest.tokens_per_s,
            }
            profiles += [{"model": name, **profile.model_dump(mode="json")} for profile in found]
            decode_ms = latency.points[0].decode.median_ms
            console.print(
                f"{name}: {decode_ms:.4g} ms, {largest.batch} rows, {largest.tokens_per_s:.5g} tokens/s",
                soft_wrap=True,
            )
    figures |= _ratios(figures)
    show(console, table(figures))
    return figures, profiles


def _ratios(figures: Figures) -> Figures:
    """Each model to the first, as measured and as published."""
    found: Figures = {}
    for name, (seconds, tokens_per_s) in PUBLISHED.items():
        if f"{name}.decode_ms" not in figures or f"{FIRST}.decode_ms" not in figures:
            continue
        found |= {
            f"{name}.latency_ratio": float(figures[f"{name}.decode_ms"])
            / float(figures[f"{FIRST}.decode_ms"]),
            f"{name}.published_latency_ratio": seconds / PUBLISHED[FIRST][0],
            f"{name}.throughput_ratio": float(figures[f"{name}.throughput_tokens_per_s"])
            / float(figures[f"{FIRST}.throughput_tokens_per_s"]),
            f"{name}.published_throughput_ratio": tokens_per_s / PUBLISHED[FIRST][1],
        }
    return found


def table(figures: Figures) -> Sheet:
    columns = {
        "decode [ms]": ("decode_ms", ".3f"),
        "ratio": ("latency_ratio", ".2f"),
        "published": ("published_latency_ratio", ".2f"),
        "rows": ("largest_batch", "d"),
        "tokens/s": ("throughput_tokens_per_s", ".0f"),
        "its ratio": ("throughput_ratio", ".3f"),
        "published of it": ("published_throughput_ratio", ".3f"),
    }
    rows, tainted = [], {}
    for name in PUBLISHED:
        reasons = str(figures.get(f"{name}.tainted", ""))
        tainted[name] = [reasons] if reasons else []
        mark = MARK if reasons else ""
        values = [(figures.get(f"{name}.{key}"), form) for key, form in columns.values()]
        cells = ("" if value is None else format(value, form) for value, form in values)
        timed = ("decode_ms", "latency_ratio", "throughput_tokens_per_s", "throughput_ratio")
        marks = (mark if key in timed else "" for key, _ in columns.values())
        rows.append((name, *(cell and cell + marked for cell, marked in zip(cells, marks, strict=True))))
    return sheet(("model", *columns), rows, words=("model",), notes=taint_notes(tainted))
