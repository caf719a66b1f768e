"""What the page shows of runs, as plain values that JSON holds. Nothing here knows HTML."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from operators import Architecture
from operators.base.errors import RunError
from operators.base.plain_json import finite
from search.evaluation.figures import suffix_of, unit_of
from search.objectives import Objective, by_kind
from search.runs.entry import Entry, finished
from search.runs.folder import RunFolder
from search.runs.frontier import dominators, hypervolume_courses
from search.runs.gate_counts import counted, gate_names
from search.runs.ledger import Ledger
from search.runs.status import state_of
from search.runs.worker_time import searched, worker_seconds
from search.spaces.edges import at_edges
from search.view.page.candidates import columns, metrics_of

STEPS = 60  # points of the course of a hypervolume


@dataclass(frozen=True)
class Source:
    """A run as it is at one moment.

    folder, ledger: where it lies.
    entries: its candidates.
    """

    folder: RunFolder
    ledger: Ledger
    entries: tuple[Entry, ...]

    @classmethod
    def read(cls, folder: RunFolder, ledger: Ledger) -> "Source":
        return cls(folder, ledger, ledger.entries())


def shown(sources: Sequence[Source]) -> dict[str, Any]:
    """All that the page shows of runs.

    Figures that are not finite are None, which JSON lacks a number for.

    Raises RunError for a run that is given twice.
    """
    paths = [source.folder.path.resolve() for source in sources]
    if twice := [
        str(source.folder.path) for source, path in zip(sources, paths, strict=True) if paths.count(path) > 1
    ]:
        raise RunError(f"{twice[0]}: given twice, expected each run once")
    names = _titles(sources)
    value = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "params": {"suffix": suffix_of("params"), "unit": unit_of("params")},
        "bytes": suffix_of("param_bytes"),
        "runs": [_run(source, name) for source, name in zip(sources, names, strict=True)],
        "courses": _courses(sources, names),
    }
    return {key: finite(each) for key, each in value.items()}


def _titles(sources: Sequence[Source]) -> list[str]:
    """The names of the runs; the paths of those whose names are the same."""
    counts = Counter(source.folder.name for source in sources)
    return [
        source.folder.name if counts[source.folder.name] == 1 else str(source.folder.path)
        for source in sources
    ]


def _run(source: Source, name: str) -> dict[str, Any]:
    folder, ledger, entries = source.folder, source.ledger, source.entries
    config, now = ledger.config, datetime.now(UTC)
    objectives, driven = config.parsed_objectives(), folder.driver() is not None
    metrics = metrics_of(config, entries)
    of_kind = by_kind(objectives, config.device_kind)
    first_by = {kind: dominators(entries, wanted) for kind, wanted in of_kind.items()}
    alone = first_by[""] if "" in first_by else dominators(entries, objectives)
    members = [entry.architecture for entry in entries if alone.get(entry.number, entry.number) is None]
    return {
        "name": name,
        "folder": str(folder.path),
        "state": state_of(folder, ledger, entries),
        "driven": driven,
        "started": ledger.started,
        "command": ledger.command,
        "asked": config.candidates,
        "first": config.evolution.population,
        "objectives": [asdict(each) for each in objectives],
        "constraints": list(config.constraints),
        "metrics": metrics,
        "kinds": [
            {
                "kind": kind,
                "objectives": [asdict(each) for each in wanted],
                "dominators": list(first_by[kind].items()),
            }
            for kind, wanted in of_kind.items()
        ],
        "candidates": columns(folder, ledger, entries, [metric["name"] for metric in metrics]),
        "gates": [asdict(gate) for gate in counted(entries, objectives, gate_names(config))],
        "time": worker_seconds(entries, workers=config.at_once, now=now if driven else None),
        "under_way": [
            {
                "number": entry.number,
                "place": entry.under_way[-1].place,
                "since": entry.under_way[-1].at.timestamp(),
            }
            for entry in entries
            if driven and entry.under_way
        ],
        "edges": at_edges([each for each in members if isinstance(each, Architecture)], config.space),
        "config": config.to_yaml(),
        "devices": _devices(entries),
        "versions": _versions(entries),
    }


def _courses(sources: Sequence[Source], names: Sequence[str]) -> list[dict[str, Any]]:
    """The hypervolumes of the runs, of those with the same objectives on one scale."""
    alike: dict[tuple[Objective, ...], list[int]] = {}
    for place, source in enumerate(sources):
        alike.setdefault(source.ledger.config.parsed_objectives(), []).append(place)
    found = []
    for objectives, places in alike.items():
        courses = hypervolume_courses([sources[place].entries for place in places], objectives, steps=STEPS)
        for place, course in zip(places, courses, strict=True):
            counts = {entry.number: count for count, entry in enumerate(finished(sources[place].entries), 1)}
            found.append(
                {
                    "run": names[place],
                    "evaluations": [counts[entry.number] for entry, _ in course],
                    "seconds": [searched(sources[place].entries, entry.ended) for entry, _ in course],
                    "hypervolume": [volume for _, volume in course],
                    "objectives": [each.metric for each in objectives],
                }
            )
    return found


def _devices(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """The devices that measured, each with the number of profiles."""
    counts = Counter(
        (profile.device_name, profile.device, profile.dtype, profile.threads)
        for entry in entries
        if entry.evaluation
        for profile in entry.evaluation.each_profile.values()
    )
    return [
        {"name": name, "device": device, "dtype": dtype, "threads": threads, "profiles": count}
        for (name, device, dtype, threads), count in counts.items()
    ]


def _versions(entries: Sequence[Entry]) -> dict[str, str]:
    """Software -> its version; all of them where it changed meanwhile."""
    known: dict[str, dict[str, None]] = {}
    for entry in entries:
        if entry.evaluation is None:
            continue
        profiles = [profile.versions for profile in entry.evaluation.each_profile.values()]
        for versions in (entry.evaluation.versions, *profiles):
            for name, version in versions.items():
                known.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(versions) for name, versions in sorted(known.items())}
