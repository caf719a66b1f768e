"""Benchmark: whether short trainings order architectures as long ones do.

A search scores architectures by short trainings of small models. The scores are worth as much as their order
is that of long trainings. Rank correlations with intervals say how much that is, also for the number of
parameters alone.

    frontrunner bench ranks --device cuda

Settings: configs/study_ranks_cpu.yaml or configs/study_ranks_h100.yaml. An interrupted run goes on when the
command is given again.
"""

from dataclasses import asdict
from statistics import fmean

from rich.console import Console

from search.benchmarks import study
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.studies import ranks as study_ranks
from search.studies.ranks import RankSettings
from search.studies.report import print_ranks


def rank_study(device: str, console: Console) -> Measured:
    """Rank correlations with the long losses, and every architecture with both of its losses."""
    settings = study.load(RankSettings, "study_ranks", device)
    folder = study.folder(settings)
    ranked = study_ranks.run(settings, results=RESULTS, name=folder.name, console=console)
    print_ranks(console, ranked)
    figures: Figures = {
        "architectures": len(ranked.compared),
        "failed": len(ranked.failed),
        "short_tokens": settings.proxy.tokens,
        "long_tokens": settings.long_tokens,
        "learning_rate": settings.proxy.learning_rate,
        "weight_normalization": settings.proxy.weight_normalization,
        "short_s_per_training": fmean(one.seconds_short for one in ranked.compared),
        "long_s_per_training": fmean(one.seconds_long for one in ranked.compared),
    }
    for predictor, both in ranked.correlations.items():
        for measure, correlation in both.items():
            name = f"{predictor.replace(' ', '_')}.{measure}"
            figures[name] = correlation.value
            figures |= {f"{name}.low": correlation.low, f"{name}.high": correlation.high}
    samples = {"architectures": [asdict(one) for one in ranked.compared], "failed": ranked.failed}
    return Measured(figures, samples, folders=[folder])


BENCHMARK = Benchmark("ranks", "whether short trainings order architectures as long ones do", rank_study)
