"""Benchmark: what weight normalization is worth for families of models.

Nemotron-Flash normalizes weights during training and reports lower losses. Each family is trained with and
without it, at a rate that suits each, with several seeds.

    frontrunner bench normalization --device cuda

Settings: configs/study_normalization_cpu.yaml or configs/study_normalization_h100.yaml. An interrupted run
goes on when the command is given again.
"""

from dataclasses import asdict

from rich.console import Console

from search.benchmarks import study
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.studies import normalization as study_normalization
from search.studies.normalization import NormalizationSettings
from search.studies.report import normalization_table
from search.view.terminal_tables import show


def weight_normalization(device: str, console: Console) -> Measured:
    """The gain of every family in nats per token with its standard error, and the losses of every seed."""
    settings = study.load(NormalizationSettings, "study_normalization", device)
    folder = study.folder(settings)
    effects = study_normalization.run(settings, results=RESULTS, name=folder.name, console=console)
    show(console, normalization_table(effects, settings))
    figures: Figures = {
        "tokens": settings.proxy.tokens,
        "seeds": len(settings.seeds),
        "learning_rate": settings.proxy.learning_rate,
        "normalized_learning_rate": settings.rate_with_it,
    }
    for effect in effects:
        of_family: Figures = {"params": effect.params, "gain": effect.gain, "gain_error": effect.error}
        if effect.problem:
            of_family = {"problem": effect.problem}
        figures |= {f"{effect.family}.{name}": value for name, value in of_family.items()}
    return Measured(figures, [asdict(effect) for effect in effects], folders=[folder])


BENCHMARK = Benchmark(
    "normalization", "what weight normalization is worth for families of models", weight_normalization
)
