"""What the page shows of the candidates of a run: columns, each with a value for every candidate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from operators import Architecture
from operators.published.engines import LISTED, all_loads, where_it_loads
from profiler.metrics import MetricName
from search.config.run import RunConfig
from search.evaluation.figures import axis_label, exact_value, suffix_of, unit_of
from search.objectives import metric_named
from search.runs.entry import Entry
from search.runs.export import why_without_weights
from search.runs.folder import RunFolder
from search.runs.frontier import relative_errors
from search.runs.ledger import Ledger
from search.view.candidate import trainings
from search.view.page.layers import Layers
from search.view.page.shared import Shared
from search.view.tables import spreads

DIGITS = 7  # of figures that are no whole numbers: they are measured to two or three
_LOSS_DIGITS = 5
_MOST_REASON = 600  # characters of a reason; `frontrunner show` has the rest


def metrics_of(config: RunConfig, entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every metric of the run and what is to be known of it: those of the settings first."""
    known = config.metrics.names()
    seen = [name for entry in entries if entry.evaluation for name in entry.evaluation.metrics]
    return [_described(name) for name in dict.fromkeys((*known, *seen))]


def _described(name: str) -> dict[str, Any]:
    parsed = MetricName.parse(name)
    metric = metric_named(parsed.metric)
    return {
        "name": name,
        "label": axis_label(name),
        "base": parsed.metric,
        "batch": parsed.batch,
        "context": parsed.context,
        "kind": parsed.kind,
        "unit": unit_of(name),
        "suffix": suffix_of(name),
        "whole": isinstance(exact_value(name, 1.0), int),
        "maximize": bool(metric and metric.maximize),
        "description": metric.description if metric else "",
    }


def columns(
    folder: RunFolder, ledger: Ledger, entries: Sequence[Entry], metrics: Sequence[str]
) -> dict[str, Any]:
    """The candidates by number.

    metrics: names of the metrics, in the order of their columns.

    Columns `text` and `layers` have the values that others name by their places.
    """
    layers, text = Layers(context=ledger.config.profile.contexts[0]), Shared()
    shown = [layers.of(entry.architecture) for entry in entries]
    evaluations = [entry.evaluation for entry in entries]
    taints = {entry.number: dict(entry.tainted()) for entry in entries}
    spread = [spreads(entry) for entry in entries]

    def texts(value: Callable[[Entry], str]) -> list[int]:
        return [text.place(value(entry)[:_MOST_REASON]) for entry in entries]

    return {
        "number": [entry.number for entry in entries],
        "architecture": [entry.architecture.shorthand for entry in entries],
        **{name: [each[name] for each in shown] for name in ("layers", "width", "depth", "around", "parts")},
        "model": [text.place(each["model"], key=str(each["model"])) for each in shown],
        "status": texts(lambda entry: entry.evaluation.status if entry.evaluation else "unfinished"),
        "reason": texts(lambda entry: entry.evaluation.reason if entry.evaluation else ""),
        "origin": texts(lambda entry: entry.origin),
        "parents": [list(entry.parents) for entry in entries],
        "order": [entry.order for entry in entries],
        "ended": [round(entry.ended.timestamp(), 1) if entry.ended else None for entry in entries],
        "seed": [each.seed if each else None for each in evaluations],
        "seconds": [_rounded(each.seconds) if each else {} for each in evaluations],
        "backends": texts(lambda entry: _listed(entry.evaluation.backends) if entry.evaluation else ""),
        "metrics": {
            name: [_figure(name, each.metrics.get(name)) if each else None for each in evaluations]
            for name in metrics
        },
        "spread": {
            name: [None if name not in each else float(f"{each[name]:.3g}") for each in spread]
            for name in dict.fromkeys(name for each in spread for name in each)
        },
        "error": _errors(entries, metrics),
        "tainted": {number: reasons for number, reasons in taints.items() if reasons},
        "curve": [_curve(entry, text) for entry in entries],
        "trained": [trainings(entry, entry.evaluation) if entry.evaluation else [] for entry in entries],
        "audits": {
            entry.number: [f"let through gate {one.gate} for an audit: {one.reason}" for one in each.audits]
            for entry, each in zip(entries, evaluations, strict=True)
            if each and each.audits
        },
        "traceback": {
            entry.number: each.traceback
            for entry, each in zip(entries, evaluations, strict=True)
            if each and each.traceback
        },
        "twice": {entry.number: _twice(entry) for entry in entries if entry.again and entry.again.evaluation},
        "loads_in": texts(_loads_in),
        "loads": [text.place(answer, key=str(answer)) for answer in map(_loads, entries)],
        "weights": texts(lambda entry: why_without_weights(folder, ledger, entry)),
        "export": [folder.command("export", entry.number) for entry in entries],
        "tables": {**layers.tables(), "text": text.values},
    }


def _errors(entries: Sequence[Entry], metrics: Sequence[str]) -> dict[str, list[float | None]]:
    """How far each figure may be off where frontiers are taken, relative to it; None for not at all."""
    found = relative_errors(entries, metrics)
    return {
        name: [_short(errors[entry.number], 4) if entry.number in errors else None for entry in entries]
        for name, errors in found.items()
        if errors
    }


def _figure(name: str, value: float | None) -> float | int | None:
    if value is None:
        return None
    exact = exact_value(name, value)
    return exact if isinstance(exact, int) else _short(exact, DIGITS)


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {purpose: _short(value, 3) for purpose, value in seconds.items()}


def _listed(mapping: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in mapping.items())


def _curve(entry: Entry, text: Shared) -> list[Any] | None:
    """The place of the tokens, which many candidates share, and the losses."""
    score = entry.evaluation.proxy if entry.evaluation else None
    if score is None or not score.curve:
        return None
    tokens = [at for at, _ in score.curve]
    losses = [_short(loss, _LOSS_DIGITS) for _, loss in score.curve]
    return [text.place(tokens, key=str(tokens)), losses]


def _twice(entry: Entry) -> list[dict[str, Any]]:
    """Both evaluations of a candidate: the seed and the metrics of each."""
    second = entry.again.evaluation if entry.again else None
    return [
        {
            "seed": each.seed,
            "status": each.status,
            "metrics": {name: _figure(name, value) for name, value in each.metrics.items()},
        }
        for each in (entry.first, second)
        if each is not None
    ]


def _loads_in(entry: Entry) -> str:
    return where_it_loads(entry.architecture) if isinstance(entry.architecture, Architecture) else ""


def _loads(entry: Entry) -> list[list[str]]:
    """A row for each engine: its name, the class that holds the candidate, and else the reason."""
    if not isinstance(entry.architecture, Architecture):
        return []
    return [
        [f"{engine} {LISTED[engine][0]}" if engine in LISTED else engine, one.name, one.reason[:_MOST_REASON]]
        for engine, one in all_loads(entry.architecture).items()
    ]
