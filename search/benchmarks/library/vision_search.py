"""Benchmark: a search for models that see, against published proportions at equal time to the first token.

    pip install 'frontrunner[vision]'
    frontrunner bench vision_search --device cuda:0

The search is a run of configs/shakti_h100.yaml, or of configs/quick_vision.yaml on a CPU, for at most five
minutes. Then each published design in proportion meets the candidate with the lowest loss that is no slower.
Both are trained with seeds that the search has not seen, so that a lucky training does not count, and
measured beside each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from operators import VisionLanguage
from operators.base.errors import ConfigError
from profiler.device.device import open_device
from search.benchmarks import record
from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.record import RESULTS
from search.config import run as config_module
from search.config.run import RunConfig
from search.runs.entry import Entry
from search.runs.preflight import prepare_run
from search.studies import vision
from search.studies.vision import Variant, VisionStudySettings

TIME = "ttft_ms@b1"
SEEDS = (1, 2, 3)  # the search has 0
# A benchmark need not search as long as a user does: what counts is whether it finds something better at all.
SEARCH_S = 300.0
PER_DEVICE = 4  # trainings at once on a GPU, which such small models leave idle for most of the time
_CONFIGS = {"cpu": Path("quick_vision"), "cuda": Path("shakti_h100")}


def search_and_meet(device: str, console: Console) -> Measured:
    """How much better candidates answer than designs that are no faster, by design; and all scores."""
    name = _CONFIGS[open_device(device).torch_device.type]
    config = config_module.load(name)
    config = config.model_copy(update={"device": device, "time_s": min(SEARCH_S, config.time_s or SEARCH_S)})
    entries, path = runs_of.searched(config, name="vision", searcher=config.searcher.name, console=console)
    space = prepare_run(config).seeing
    if space is None:
        raise ConfigError(f"{name}: expected a search for models that see")
    designs = space.designs()
    first = _settings(config, designs)
    folder = record.folder("vision-designs", first, config.data, config.device)
    measured = vision.run(first, results=RESULTS, name=folder.name, console=console)
    pairs = {
        design.name: rival
        for design in measured
        if not design.problem and (rival := best_of(entries, design.times[TIME])) is not None
    }
    rivals = {f"candidate {entry.number}": _value(entry) for entry in pairs.values()}
    second = _settings(config, rivals or designs)
    other = record.folder("vision-rivals", second, config.data, config.device)
    found = vision.run(second, results=RESULTS, name=other.name, console=console) if rivals else []
    by_name = {one.name: one for one in (*measured, *found)}
    figures: Figures = {
        "candidates": len(entries),
        "designs": len(designs),
        "pairs": len(pairs),
        "examples": first.stages.align_examples + first.stages.tune_examples,
        "seeds": len(SEEDS),
    }
    rows = []
    for name, entry in pairs.items():
        design, rival = by_name[name], by_name[f"candidate {entry.number}"]
        figures |= {f"{name}.{key}": value for key, value in compared(design, rival).items()}
        rows.append(
            {"design": asdict(design), "candidate": asdict(rival), "shorthand": entry.architecture.shorthand}
        )
        console.print(told(design, rival), soft_wrap=True, markup=False, highlight=False)
    samples = {"pairs": rows, "candidates": [_row(entry) for entry in entries]}
    return Measured(figures, samples, folders=[path, folder, *([other] if rivals else [])])


def best_of(entries: Sequence[Entry], ms: float) -> Entry | None:
    """The candidate with the lowest answer loss among those that are no slower; None where there is none."""
    as_fast = [
        (entry.evaluation.metrics["answer_loss"], entry.number, entry)
        for entry in entries
        if entry.evaluation and entry.evaluation.status == "ok" and entry.evaluation.metrics[TIME] <= ms
    ]
    return min(as_fast)[2] if as_fast else None


def compared(design: Variant, rival: Variant) -> Figures:
    """Both means and times; what the candidate gains, with the standard error of the seeds' differences."""
    figures: Figures = {}
    for side, one in (("design", design), ("candidate", rival)):
        figures |= {f"{side}_params": one.params, f"{side}_ttft_ms": one.times.get(TIME, float("nan"))}
        for score in ("answer_loss", "answer_accuracy"):
            if score in one.scores:
                figures[f"{side}_{score}"] = fmean(one.scores[score])
    for score, sign in (("answer_loss", -1), ("answer_accuracy", 1)):
        if score in design.scores and score in rival.scores:
            pairs = zip(rival.scores[score], design.scores[score], strict=True)
            gains = [sign * (ours - theirs) for ours, theirs in pairs]
            figures |= {
                f"{score}_gain": fmean(gains),
                f"{score}_gain_error": stdev(gains) / len(gains) ** 0.5,
            }
    return figures


def told(design: Variant, rival: Variant) -> str:
    """Both in one line."""
    sides = []
    for one in (rival, design):
        if one.problem:
            sides.append(f"{one.name}: {one.problem}")
            continue
        right, loss = fmean(one.scores["answer_accuracy"]), fmean(one.scores["answer_loss"])
        sides.append(f"{one.name}: {right:.1%} right, loss {loss:.4f}, {one.times[TIME]:.3f} ms")
    return " against ".join(sides)


def _settings(config: RunConfig, values: Mapping[str, VisionLanguage]) -> VisionStudySettings:
    """The study in which these models are trained as in the search, with other seeds."""
    if config.vision is None or not values:
        raise ConfigError("bench vision_search: expected a search with designs in its space")
    variants = {
        name: {part: value.model_dump(mode="json")[part] for part in ("tower", "projector", "language")}
        for name, value in values.items()
    }
    return VisionStudySettings(
        seeds=SEEDS,
        per_device=1 if config.device == "cpu" else PER_DEVICE,
        device=config.device,
        deadline_s=config.deadline_s,
        data=config.data,
        proxy=config.proxy,
        profile=config.profile,
        model=next(iter(values.values())),
        variants=variants,
        images=config.vision.images,
        stages=config.vision.stages,
    )


def _value(entry: Entry) -> VisionLanguage:
    if not isinstance(entry.architecture, VisionLanguage):
        raise ConfigError(f"candidate {entry.number}: expected a model that sees")
    return entry.architecture


def _row(entry: Entry) -> dict[str, Any]:
    found = entry.evaluation
    return {
        "id": entry.number,
        "shorthand": entry.architecture.shorthand,
        "origin": entry.origin,
        "status": found.status if found else "unfinished",
        "metrics": dict(found.metrics) if found else {},
        "seconds": dict(found.seconds) if found else {},
    }


BENCHMARK = Benchmark(
    "vision_search",
    "a search for models that see, against published proportions at equal time to the first token",
    search_and_meet,
    needs={"PIL": "pip install 'frontrunner[vision]'"},
)
