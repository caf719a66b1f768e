"""Benchmark: a search of a wide space from empty kernel caches, and what its best three are worth afterwards.

A wide space has many shapes, and each has kernels to compile. So a search of it shows what a user meets who
begins without `frontrunner warm`: how long the first candidate takes, and how many an hour follow.

    frontrunner bench wide --device cuda

The search is a run of configs/wide_h100.yaml, or of configs/quick.yaml on a CPU, which only shows that the
benchmark runs. Its three best are then trained with ten times the tokens and three seeds, beside published
designs that were rescaled to the same measured time (`frontrunner promote`).

The driver's samples tell the share of the time in which the GPU ran kernels. The ledger has the seconds of
each evaluation by purpose, not when each purpose began. So it tells no share of the time in which anything is
trained or measured, but a least one. A measurement has its GPU to itself, and trainings pause for it. So the
seconds of measurements add up, and at most `per_gpu` trainings overlap.

An interrupted benchmark goes on with empty caches once more. Its times are then not those of a single search.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from operators.base.errors import ConfigError
from operators.base.threads import usable_cores
from profiler.device.gpus import devices
from search.benchmarks import runs as runs_of
from search.benchmarks.benchmark import Benchmark, Figures, Measured
from search.benchmarks.busy_gpus import watched
from search.benchmarks.kernel_cache import empty_kernel_cache
from search.benchmarks.library.scaling import rate
from search.benchmarks.record import RESULTS
from search.config.run import RunConfig
from search.runs.entry import Entry, finished
from search.runs.worker_time import searched, worker_seconds
from search.studies import promotion as study
from search.studies.promoted import Comparison, Promotion
from search.studies.promotion_table import promotion_table
from search.view.terminal_tables import show

TOP, SEEDS, LONGER = 3, 3, 10
AGAINST = ("nemotron-flash-1b", "llama-3.2-1b")
FIRST = 6  # candidates: as many as wide_h100 evaluates at once
CONFIGS = {"cuda": Path("wide_h100"), "cpu": Path("quick")}
_OF_A_PAIR = ("candidate_ms", "rival_ms", "difference", "difference_low", "difference_high", "verdict")


def search_and_promote(device: str, console: Console) -> Measured:
    """Rates and times of the search, what came of its winners, all candidates and all pairs.

    before_first_s: from the search's call to the beginning of its first evaluation. Text is prepared and
        workers start meanwhile. It and the GPU's busy share are left out where the search began in an earlier
        call.
    """
    config = runs_of.load(device, CONFIGS)
    with empty_kernel_cache():
        entries, path, figures = searched_from_empty(config, "wide", device, console)
        promotion = promoted(path, config, AGAINST, device, console)
    return Measured(
        {**machine_figures(config), **figures, **promotion_figures(promotion)},
        samples(entries, promotion),
        folders=[path],
    )


def machine_figures(config: RunConfig) -> Figures:
    return {"cores": len(usable_cores()), "workers": config.workers, "at_once": config.at_once}


def searched_from_empty(
    config: RunConfig, name: str, device: str, console: Console
) -> tuple[Sequence[Entry], Path, Figures]:
    """Searches, within `empty_kernel_cache`: its candidates, its folder, and what its time went into.

    What only a look at the whole search tells is left out where it began earlier and is now gone on with.
    """
    began = datetime.now(UTC)
    with watched(devices(device)) as busy:
        entries, path = runs_of.searched(config, name=name, searcher=config.searcher.name, console=console)
    figures = search_figures(
        entries, devices=1 if device == "cpu" else config.workers, at_once=config.at_once
    )
    if (waited := (_first_begun(entries) - began).total_seconds()) >= 0:
        figures |= {
            "before_first_s": round(waited, 1),
            **({} if busy.share is None else {"gpu_busy_share": busy.share}),
            **({"gpu_busy_refused": busy.refused} if busy.refused else {}),
        }
    return entries, path, figures


def promoted(
    path: Path, config: RunConfig, against: Sequence[str], device: str, console: Console
) -> Promotion:
    """Trains the best of the run in that folder longer, beside these rivals, and shows the table."""
    promotion = study.promote(
        path.name,
        results=RESULTS,
        tokens=LONGER * config.proxy.tokens,
        seeds=SEEDS,
        top=TOP,
        against=against,
        device=device,
        console=console,
    )
    show(console, promotion_table(promotion))
    return promotion


def search_figures(entries: Sequence[Entry], *, devices: int, at_once: int) -> Figures:
    """What a search did with its time.

    first_s, first_six_s: from the beginning of the first evaluation to the end of the first candidate, and of
        the sixth. What is of six is left out where fewer ended.
    candidate.PURPOSE_s, first_six.PURPOSE_s: mean seconds of a candidate by purpose, as of `Evaluation`; of
        all that ended, and of the first six.
    measured_share: the share of the devices' time in which something is measured.
    trained_s: of all trainings, as if one came after the other.
    busy_at_least: the least share of that time in which something is measured or trained. A training that
        compiles its kernels counts.

    devices: how many measure and train.
    at_once: evaluations at a time on all of them.

    Raises ConfigError where no candidate ended.
    """
    ended, ends = finished(entries), sorted(entry.ended for entry in entries if entry.ended)
    if not ended:
        raise ConfigError(f"bench wide: expected candidates that ended, got none of {len(entries)}")
    began = _first_begun(entries)
    seconds, purposes = searched(entries), worker_seconds(entries, workers=at_once, now=None)
    measured, trained = purposes.get("profile", 0.0), purposes.get("train", 0.0)
    figures: Figures = {
        "search_s": round(seconds, 1),
        "candidates": len(ended),
        **runs_of.statuses(entries),
        "candidates_per_hour": 3600 * len(ended) / seconds,
        "first_s": round((ends[0] - began).total_seconds(), 1),
    }
    groups = {"candidate": ended}
    if len(ended) >= FIRST:
        figures["first_six_s"] = round((ends[FIRST - 1] - began).total_seconds(), 1)
        groups["first_six"] = ended[:FIRST]
    if len(ended) > 1:
        figures["candidates_per_hour_after_first"] = 3600 * rate(entries, (1, len(ended)))
    for name, some in groups.items():
        figures |= {f"{name}.{purpose}_s": value for purpose, value in _mean_seconds(some).items()}
    return figures | {
        "trained_s": round(trained, 1),
        "measured_share": measured / (seconds * devices),
        "busy_at_least": (measured / devices + trained / at_once) / seconds,
    }


def _first_begun(entries: Sequence[Entry]) -> datetime:
    return min(attempt.at for entry in entries for attempt in entry.attempts)


def promotion_figures(promotion: Promotion) -> Figures:
    """How many pairs ended how, and of each pair both times, the difference, its interval and the verdict."""
    rows = [pair(one) for one in promotion.comparisons]
    figures: Figures = {
        "tokens": promotion.tokens,
        "seeds": len(promotion.seeds),
        "pairs": len(rows),
        "better": sum(row["verdict"] == "better" for row in rows),
        "worse": sum(row["verdict"] == "worse" for row in rows),
    }
    for row in rows:
        name = f"{row['candidate']} against {row['rival']}"
        figures |= {f"{name}.{key}": row[key] for key in _OF_A_PAIR if row[key] is not None}
    return figures


def samples(entries: Sequence[Entry], promotion: Promotion) -> dict[str, Any]:
    """What the figures come from: a row for each candidate, and one for each pair."""
    return {
        "candidates": [runs_of.row(entry) for entry in entries],
        "pairs": [pair(one) for one in promotion.comparisons],
    }


def pair(one: Comparison) -> dict[str, Any]:
    """A candidate and its rival, as a row of a record.

    difference: the rival's loss less the candidate's (nats per token), with its interval; None where it is
        not known.
    """
    row: dict[str, Any] = {"candidate": one.candidate.candidate, "rival": one.rival.rival}
    for side, member in (("candidate", one.candidate), ("rival", one.rival)):
        row |= {
            f"{side}_width": member.width,
            f"{side}_depth": member.depth,
            f"{side}_params": member.params,
            f"{side}_ms": member.ms,
            f"{side}_tainted": list(member.tainted),
            f"{side}_loss": member.loss,
            f"{side}_losses": [member.losses[seed] for seed in sorted(member.losses)],
        }
    found = one.difference
    return row | {
        "time_ratio": one.time_ratio,
        "difference": found.mean if found else None,
        "difference_low": found.low if found else None,
        "difference_high": found.high if found else None,
        "verdict": one.verdict,
        "remark": one.remark,
    }


def _mean_seconds(entries: Sequence[Entry]) -> dict[str, float]:
    """Mean seconds by purpose, of candidates that ended. One without seconds for a purpose counts as 0."""
    each = [entry.evaluation.seconds for entry in entries if entry.evaluation]
    purposes = list(dict.fromkeys(purpose for seconds in each for purpose in seconds))
    return {purpose: fmean(seconds.get(purpose, 0.0) for seconds in each) for purpose in purposes}


BENCHMARK = Benchmark(
    "wide",
    "a search of a wide space from empty kernel caches, and its winners trained longer",
    search_and_promote,
)
