"""Benchmark: what the paper of Shakti-VLM leaves open, on one model that sees.

Normalization at several splits, query-key normalization, positions, patches by resolution, one stage against
three at equal tokens. Published small models stand beside the variants, measured and not trained.

    pip install 'frontrunner[vision]'
    frontrunner bench vision_study --device cuda

Settings: configs/study_vision_cpu.yaml or configs/study_vision_h100.yaml. An interrupted run goes on when the
command is given again.
"""

from dataclasses import asdict

from rich.console import Console

from search.benchmarks import study
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.studies import vision
from search.studies.report import vision_table
from search.studies.vision import VisionStudySettings
from search.view.terminal_tables import show


def variants_of_shakti(device: str, console: Console) -> Measured:
    """The mean scores of every variant with standard errors, its times, and the scores of every seed."""
    settings = study.load(VisionStudySettings, "study_vision", device)
    folder = study.folder(settings)
    variants = vision.run(settings, results=RESULTS, name=folder.name, console=console)
    show(console, vision_table(variants, settings))
    figures: Figures = {
        "seeds": len(settings.seeds),
        "text_tokens": settings.proxy.tokens,
        "examples": settings.stages.align_examples + settings.stages.tune_examples,
    }
    for one in variants:
        figures |= {f"{one.name}.{name}": value for name, value in _figures(one).items()}
    return Measured(figures, [asdict(one) for one in variants], folders=[folder])


def _figures(one: vision.Variant) -> Figures:
    if one.problem:
        return {"problem": one.problem}
    scores = {name: sum(values) / len(values) for name, values in one.scores.items()}
    errors = {f"{name}_error": error for name in one.scores if (error := one.spread(name)) is not None}
    sizes: Figures = {"params": one.params, "image_tokens": one.image_tokens}
    return sizes | scores | errors | dict(one.times)


BENCHMARK = Benchmark(
    "vision_study",
    "what the paper of Shakti-VLM leaves open: normalization, positions, patches and stages",
    variants_of_shakti,
    needs={"PIL": "pip install 'frontrunner[vision]'"},
)
