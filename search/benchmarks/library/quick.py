"""Benchmark: the search of configs/quick.yaml from start to end.

This is the search that a newcomer runs first. The record says how long it takes and how much it finds.

    frontrunner bench quick
"""

import time
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.benchmarks.runs import go_on, row
from search.config import run as config_module
from search.runs import run
from search.view.progress import print_event


def quick(device: str, console: Console) -> Measured:
    """Time, losses and hypervolumes of the search, a row for each candidate, and the plot of the frontier."""
    config = config_module.load(Path("quick")).model_copy(update={"device": device})
    name = f"bench-quick-{datetime.now():%Y%m%d-%H%M%S}"
    folder = run.start(config, results=RESULTS, name=name, on_event=partial(print_event, console))
    start = time.perf_counter()
    ended_run = go_on(folder, console)
    seconds = time.perf_counter() - start
    entries, best, gain = ended_run.entries, ended_run.frontier, ended_run.gain
    ended = [entry.evaluation for entry in entries if entry.evaluation]
    scores = [evaluation.proxy for evaluation in ended if evaluation.proxy]
    figures: Figures = {
        "search_s": round(seconds, 1),
        "candidates": len(entries),
        "ok": sum(evaluation.status == "ok" for evaluation in ended),
        "frontier": len(best),
        "hypervolume": gain.final if gain else 0.0,
        "hypervolume_initial_population": gain.initial if gain else 0.0,
        "best_loss_nats_per_token": min(score.loss for score in scores),
        "unigram_loss_nats_per_token": scores[0].unigram_loss,
        "train_s_per_candidate": sum(each.seconds.get("train", 0.0) for each in ended) / len(ended),
        "profile_s_per_candidate": sum(each.seconds.get("profile", 0.0) for each in ended) / len(ended),
    }
    rows = [{**row(entry), "parents": entry.parents, "frontier": entry in best} for entry in entries]
    return Measured(figures, rows, {"png": folder.plot().read_bytes()})


BENCHMARK = Benchmark("quick", "the search of configs/quick.yaml: how long it takes and what it finds", quick)
