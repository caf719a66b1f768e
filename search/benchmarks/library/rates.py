"""Benchmark: whether one learning rate is best at every width.

A search trains models of many widths with one learning rate. That is fair where the best rate does not depend
on the width. Each width is trained at several rates, with learning-rate transfer and without it.

    frontrunner bench rates --device cuda

Settings: configs/study_rates_cpu.yaml or configs/study_rates_h100.yaml. An interrupted run goes on when the
command is given again.
"""

from dataclasses import asdict
from math import isfinite

from rich.console import Console

from search.benchmarks import study
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.studies import rates as study_rates
from search.studies.rates import RateSettings
from search.studies.report import rates_table
from search.view.terminal_tables import show


def learning_rates(device: str, console: Console) -> Measured:
    """The best rate of each width, what the base width's best rate loses there, and all losses."""
    settings = study.load(RateSettings, "study_rates", device)
    folder = study.folder(settings)
    sweeps = study_rates.run(settings, results=RESULTS, name=folder.name, console=console)
    show(console, rates_table(sweeps, settings))
    figures: Figures = {
        "tokens": settings.proxy.tokens,
        "seeds": len(settings.seeds),
        "best_rate_at_base_width": sweeps[0].chosen,
        "weight_normalization": settings.proxy.weight_normalization,
    }
    for sweep in sweeps:
        where = f"width{sweep.width}.{'carried' if sweep.carried else 'as_it_is'}"
        figures |= {
            f"{where}.best_rate": sweep.best,
            f"{where}.lost": sweep.lost if isfinite(sweep.lost) else "failed",
        }
    return Measured(figures, [asdict(sweep) for sweep in sweeps], folders=[folder])


BENCHMARK = Benchmark("rates", "whether one learning rate is best at every width", learning_rates)
