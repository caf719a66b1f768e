"""Benchmark: a search for models that see, against published proportions at equal time to the first token.

    pip install 'frontrunner[vision]'
    frontrunner bench vision_search --device cuda

The search is a run of configs/shakti_h100.yaml, or of configs/quick_vision.yaml on a CPU. A score of one
training is partly luck, and the best of many scores is mostly that. So the candidates with the lowest losses
that are no slower than a design are measured and trained again with other seeds. The best of them meets the
design with seeds that neither the search nor that choice has seen. Where all of them are slower than the
design when they are measured again, the next ones have their turn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from operators import VisionLanguage
from operators.base.errors import ConfigError
from profiler.device.device import open_device
from proxy_train.images.stage_settings import StageSettings
from search.benchmarks import record
from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.comparison import mean_and_error
from search.benchmarks.record import RESULTS
from search.config import run as config_module
from search.config.run import RunConfig
from search.config.vision import VisionSettings
from search.runs.entry import Entry
from search.runs.preflight import prepare_run
from search.studies import vision
from search.studies.vision import Variant, VisionStudySettings

TIME = "ttft_ms@b1"
FINALISTS = 3  # candidates that are trained again for each design at a time
ROUNDS = 4  # how often further candidates have their turn at most
CHOICE, PROOF = (1, 2, 3), (4, 5, 6)  # seeds; the search has 0
PER_DEVICE = 4  # trainings at once on a GPU, which such small models leave idle for most of the time
_CONFIGS = {"cpu": Path("quick_vision"), "cuda": Path("shakti_h100")}


def search_and_meet(device: str, console: Console) -> Measured:
    """How much better candidates answer than designs that are no faster, by design; and all scores."""
    kind = open_device(device).torch_device.type
    config = config_module.load(_CONFIGS[kind])
    config = config.model_copy(update={"device": device})
    entries, path = runs_of.searched(config, name="vision", searcher=config.searcher.name, console=console)
    space = prepare_run(config).seeing
    designs = {} if space is None else space.designs()
    folders = [path]

    def trained(values: Mapping[str, VisionLanguage], seeds: tuple[int, ...]) -> dict[str, Variant]:
        if not values:
            return {}
        settings = _settings(config, values, seeds)
        folders.append(record.folder("vision-designs", settings, config.data, config.device))
        found = vision.run(settings, results=RESULTS, name=folders[-1].name, console=console)
        return {one.name: one for one in found}

    proved = trained(designs, PROOF)
    limits = {name: one.times[TIME] for name, one in proved.items() if not one.problem}
    by_title = {title(entry): entry for entry in entries}
    winners, again = choice(
        entries, limits, lambda names: trained({name: _value(by_title[name]) for name in names}, CHOICE)
    )
    rivals = trained({winner: _value(by_title[winner]) for winner in winners.values()}, PROOF)
    figures: Figures = {
        "candidates": len(entries),
        "designs": len(designs),
        "pairs": len(winners),
        "examples": _stages(config).align_examples + _stages(config).tune_examples,
        "seeds": len(PROOF),
    }
    rows = []
    for name, winner in winners.items():
        design, rival = proved[name], rivals[winner]
        figures |= {f"{name}.{key}": value for key, value in compared(design, rival).items()}
        rows.append({"design": asdict(design), "candidate": asdict(rival)})
        console.print(told(design, rival), soft_wrap=True, markup=False, highlight=False)
    samples = {
        "pairs": rows,
        "finalists": [asdict(one) for one in again.values()],
        "candidates": [_row(entry) for entry in entries],
    }
    return Measured(figures, samples, folders=folders)


def title(entry: Entry) -> str:
    return f"candidate {entry.number}"


def choice(
    entries: Sequence[Entry],
    limits: Mapping[str, float],
    trained: Callable[[Sequence[str]], Mapping[str, Variant]],
) -> tuple[dict[str, str], dict[str, Variant]]:
    """By design, the name of the candidate that meets it; and all that were trained for that, by name.

    entries: the search's
    limits: the time of each design (ms)
    trained: trains and measures candidates of these names again, with other seeds than the search's
    """
    waiting = {name: [title(entry) for entry in ranked(entries, ms)] for name, ms in limits.items()}
    winners: dict[str, str] = {}
    again: dict[str, Variant] = {}
    for _ in range(ROUNDS):
        turn = {name: titles[:FINALISTS] for name, titles in waiting.items() if titles}
        if fresh := dict.fromkeys(each for titles in turn.values() for each in titles if each not in again):
            again |= trained(list(fresh))
        for name, titles in turn.items():
            if winner := chosen([again[each] for each in titles], limits[name]):
                winners[name] = winner
                del waiting[name]
            else:
                waiting[name] = waiting[name][FINALISTS:]
    return winners, again


def ranked(entries: Sequence[Entry], ms: float) -> list[Entry]:
    """The candidates that were no slower in the search, by their answer losses there."""
    as_fast = [
        (entry.evaluation.metrics["answer_loss"], entry.number, entry)
        for entry in entries
        if entry.evaluation and entry.evaluation.status == "ok" and entry.evaluation.metrics[TIME] <= ms
    ]
    return [entry for *_, entry in sorted(as_fast)]


def chosen(trained: Sequence[Variant], ms: float) -> str:
    """The name of the one with the lowest mean loss, of those that are no slower; empty where none is."""
    as_fast = [
        (fmean(one.scores["answer_loss"]), one.name)
        for one in trained
        if not one.problem and one.times[TIME] <= ms
    ]
    return min(as_fast)[1] if as_fast else ""


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
            gain, error = mean_and_error(gains)
            figures |= {f"{score}_gain": gain, f"{score}_gain_error": error}
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


def _settings(
    config: RunConfig, values: Mapping[str, VisionLanguage], seeds: tuple[int, ...]
) -> VisionStudySettings:
    """The study in which these models are trained as in the search, with these seeds."""
    parts = ("tower", "projector", "language")
    dumped = {name: value.model_dump(mode="json") for name, value in values.items()}
    return VisionStudySettings(
        seeds=seeds,
        per_device=1 if config.device == "cpu" else PER_DEVICE,
        device=config.device,
        deadline_s=config.deadline_s,
        data=config.data,
        proxy=config.proxy,
        profile=config.profile,
        model=next(iter(values.values())),
        variants={name: {part: whole[part] for part in parts} for name, whole in dumped.items()},
        images=_vision(config).images,
        stages=_stages(config),
    )


def _vision(config: RunConfig) -> VisionSettings:
    if config.vision is None:
        raise ConfigError("bench vision_search: expected the configuration of a search for models that see")
    return config.vision


def _stages(config: RunConfig) -> StageSettings:
    return _vision(config).stages


def _value(entry: Entry) -> VisionLanguage:
    if not isinstance(entry.architecture, VisionLanguage):
        raise ConfigError(f"candidate {entry.number}: expected a model that sees")
    return entry.architecture


def _row(entry: Entry) -> dict[str, Any]:
    found = entry.evaluation
    return {
        "id": entry.number,
        "shorthand": entry.architecture.shorthand,
        "model": entry.architecture.model_dump(mode="json", exclude_defaults=True),
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
