"""What the studies say, as tables for a terminal."""

from collections.abc import Sequence
from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from search.figures import formatted
from search.studies.experiment import ExperimentSettings
from search.studies.ranks import LEVEL, Correlation
from search.studies.study_normalization import Effect, NormalizationSettings
from search.studies.study_operators import OperatorSettings, Row
from search.studies.study_ranks import RankStudy
from search.studies.study_rates import RateSettings, Sweep


def operators_table(rows: Sequence[Row], settings: OperatorSettings) -> Table:
    """A row a block."""
    title = f"{settings.layers} layers, equal {settings.equal}, {_trained(settings)}"
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    remarks = ["remarks"] if any(row.problem for row in rows) else []
    latencies = settings.profile.keys("decode_ms")
    spread = ["±"] if len(settings.seeds) > 1 else []
    words = ("mixers", "remarks")  # which give way in a narrow terminal, never a figure
    for name in ("mixers", "width", "parameters", "loss", *spread, *latencies, *remarks):
        table.add_column(name, justify="left" if name in words else "right", no_wrap=name not in words)
    for row in rows:
        figures = [_number(row.loss, 4), *([_number(row.spread, 4)] if spread else [])]
        figures += [_number(row.decode_ms.get(name), 3) for name in latencies]
        table.add_row(
            " + ".join(row.mixers),
            str(row.width),
            formatted("params", row.params),
            *figures,
            *([row.problem] if remarks else []),
        )
    return table


def normalization_table(effects: Sequence[Effect], settings: NormalizationSettings) -> Table:
    """A row a family: mean losses over the seeds, and what is gained, with its standard error."""
    title = f"width {settings.width}, {_trained(settings)}, rate {settings.proxy.learning_rate:g}"
    if settings.normalized_learning_rate is not None:
        title += f", {settings.normalized_learning_rate:g} with"
    table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    remarks = ["remarks"] if any(effect.problem for effect in effects) else []
    for name in ("family", "parameters", "without", "with", "gain", "±", *remarks):
        table.add_column(
            name, justify="left" if name in ("family", "remarks") else "right", no_wrap=name != "remarks"
        )
    for effect in effects:
        figures = (
            [fmean(effect.without), fmean(effect.with_it), effect.gain, effect.error]
            if not effect.problem
            else [None] * 4
        )
        shown = (_number(figure, 4) for figure in figures)
        table.add_row(
            effect.family, formatted("params", effect.params), *shown, *([effect.problem] if remarks else [])
        )
    return table


def rates_table(sweeps: Sequence[Sweep], settings: RateSettings) -> Table:
    """A row a width: losses by learning rate, the lowest marked, and what the base width's best rate loses there."""
    title = f"{settings.layers}, {settings.proxy.tokens:,} tokens, best rate at width {settings.proxy.base_width}: {sweeps[0].chosen:g}"
    table = Table(
        title=title,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    rates = sorted(settings.rates)
    for name in ("width", "rate", *(f"{rate:g}" for rate in rates), "lost"):
        table.add_column(name, justify="left" if name == "rate" else "right", no_wrap=True)
    for sweep in sweeps:
        losses = [_number(sweep.losses.get(rate), 3) + ("*" if rate == sweep.best else " ") for rate in rates]
        table.add_row(
            str(sweep.width), "carried over" if sweep.carried else "as it is", *losses, f"{sweep.lost:.3f}"
        )
    return table


def print_ranks(console: Console, study: RankStudy) -> None:
    """What predicts the long loss, and the architectures, the best first."""
    settings = study.settings
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("width", "architecture", "parameters", "short loss", "long loss"):
        table.add_column(name, justify="left" if name == "architecture" else "right", overflow="fold")
    for one in sorted(study.compared, key=lambda one: one.long_loss):
        table.add_row(
            str(one.width),
            one.shorthand,
            formatted("params", one.params),
            _number(one.short_loss, 4),
            _number(one.long_loss, 4),
        )
    console.print(table)
    for label, reason in study.failed.items():
        console.print(f"left out {label}: {reason}", soft_wrap=True, markup=False)
    budgets = f"{settings.proxy.tokens:,} tokens against {settings.long_tokens:,}"
    summary = Table(
        title=f"{len(study.compared)} architectures, {budgets}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("orders the long loss", "Spearman ρ", f"{LEVEL:.0%}", "Kendall τ", f"{LEVEL:.0%}"):
        summary.add_column(name, justify="left" if name == "orders the long loss" else "right", no_wrap=True)
    for predictor, found in study.correlations.items():
        summary.add_row(predictor, *_correlation(found["spearman"]), *_correlation(found["kendall"]))
    console.print(summary)


def _correlation(found: Correlation) -> tuple[str, str]:
    return f"{found.value:.3f}", f"{found.low:.3f} – {found.high:.3f}"


def _trained(settings: ExperimentSettings) -> str:
    """With how many tokens, and how often."""
    count = len(settings.seeds)
    return f"{settings.proxy.tokens:,} tokens, {count} seed{'s' if count > 1 else ''}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
