"""The results of the studies, as tables for a terminal."""

from collections.abc import Sequence
from statistics import fmean

from rich.console import Console

from search.evaluation.figures import formatted
from search.studies.experiment import ExperimentSettings
from search.studies.normalization import Effect, NormalizationSettings
from search.studies.operators import OperatorSettings, Row
from search.studies.ranks import RankStudy
from search.studies.rates import RateSettings, Sweep
from search.studies.statistics import LEVEL, Correlation
from search.studies.vision import Variant, VisionStudySettings
from search.view.tables import MARK, taint_notes
from search.view.terminal_tables import Sheet, sheet, show

_LOSS, _SPREAD = "loss [nats/token]", "±"


def operators_table(rows: Sequence[Row], settings: OperatorSettings) -> Sheet:
    """Returns a table with a row for each block."""
    latencies = settings.profile.keys("decode_ms")
    spread = [_SPREAD] if len(settings.seeds) > 1 else []
    remarks = ["remarks"] if any(row.problem for row in rows) else []
    cells, tainted = [], {}
    for row in rows:
        mixers, mark = " + ".join(row.mixers), MARK if row.tainted else ""
        tainted[mixers] = row.tainted
        figures = [_number(row.loss, 4), *([_number(row.spread, 4)] if spread else [])]
        times = [_number(row.decode_ms.get(name), 3) for name in latencies]
        figures += [time and time + mark for time in times]
        sizes = (str(row.width), formatted("params", row.params))
        cells.append((mixers, *sizes, *figures, *([row.problem] if remarks else [])))
    return sheet(
        ("mixers", "width", "parameters", _LOSS, *spread, *latencies, *remarks),
        cells,
        words=("mixers", "remarks"),
        title=f"{settings.layers} layers, equal {settings.equal}, {_trained(settings)}",
        notes=taint_notes(tainted),
    )


def normalization_table(effects: Sequence[Effect], settings: NormalizationSettings) -> Sheet:
    """Returns a table with a row for each family: mean losses, and the gain with its standard error."""
    rate = f"rate {settings.proxy.learning_rate:g}"
    title = f"losses [nats/token], width {settings.width}, {_trained(settings)}, {rate}"
    if settings.normalized_learning_rate is not None:
        title += f", {settings.normalized_learning_rate:g} with"
    remarks = ["remarks"] if any(effect.problem for effect in effects) else []
    rows = []
    for effect in effects:
        figures = (
            [fmean(effect.without), fmean(effect.with_it), effect.gain, effect.error]
            if not effect.problem
            else [None] * 4
        )
        shown = (_number(figure, 4) for figure in figures)
        problem = [effect.problem] if remarks else []
        rows.append((effect.family, formatted("params", effect.params), *shown, *problem))
    names = ("family", "parameters", "without", "with", "gain", "±", *remarks)
    return sheet(names, rows, words=("family", "remarks"), title=title)


def rates_table(sweeps: Sequence[Sweep], settings: RateSettings) -> Sheet:
    """Returns a table with a row for each width: its loss at each learning rate, the lowest marked.

    The last column is what the base width's best rate costs at this width.
    """
    base = settings.proxy.base_width
    trained = f"{settings.layers}, {settings.proxy.tokens:,} tokens"
    title = f"{trained}, losses [nats/token] by learning rate, * the lowest of a width"
    rates = sorted(settings.rates)
    rows = []
    for sweep in sweeps:
        losses = [_number(sweep.losses.get(rate), 3) + ("*" if rate == sweep.best else " ") for rate in rates]
        carried = "carried over" if sweep.carried else "as it is"
        rows.append((str(sweep.width), carried, *losses, f"{sweep.lost:.3f}"))
    names = ("width", "rate", *(f"{rate:g}" for rate in rates), "lost")
    note = f"lost: by the best rate at width {base}, {sweeps[0].chosen:g}"
    return sheet(names, rows, words=("rate",), title=title, notes=[note])


def vision_table(variants: Sequence[Variant], settings: VisionStudySettings) -> Sheet:
    """Returns a table with a row for each variant: its answers, its text, and the time to the first token."""
    spread = [_SPREAD] if len(settings.seeds) > 1 else []
    measures = ("ttft_ms", "decode_ms", "peak_memory_bytes")
    times = [name for metric in measures for name in settings.profile.keys(metric)]
    remarks = ["remarks"] if any(one.problem or one.warnings for one in variants) else []
    rows, tainted = [], {}
    for one in variants:
        tainted[one.name] = one.tainted
        answers = [
            _number(one.mean("answer_loss"), 4),
            *[_number(one.spread("answer_loss"), 4) for _ in spread],
        ]
        right = [
            _percent(one.mean("answer_accuracy")),
            *[_percent(one.spread("answer_accuracy")) for _ in spread],
        ]
        text = [_number(one.mean("text_loss"), 4), _number(one.mean("text_loss_before"), 4)]
        measured = [_measured(name, one.times.get(name)) for name in times]
        measured = [value and value + (MARK if one.tainted else "") for value in measured]
        said = "; ".join(filter(None, (one.problem, *one.warnings)))
        sizes = (one.name, formatted("params", one.params), str(one.image_tokens))
        rows.append((*sizes, *answers, *right, *text, *measured, *([said] if remarks else [])))
    examples = settings.stages.align_examples + settings.stages.tune_examples
    count = len(settings.seeds)
    return sheet(
        (
            *("variant", "parameters", "image tokens", "answer loss", *spread, "right", *spread),
            *("text loss", "before", *times, *remarks),
        ),
        rows,
        words=("variant", "remarks"),
        title=f"{settings.proxy.tokens:,} tokens of text, {examples:,} examples, {count} "
        f"seed{'s' if count > 1 else ''}; losses in nats/token, text before: behind the first stage",
        notes=taint_notes(tainted),
    )


def _measured(name: str, value: float | None) -> str:
    """A time with three digits, memory in its unit; empty where there is none."""
    if value is not None and name.startswith("peak_memory_bytes"):
        return formatted("peak_memory_bytes", value)
    return _number(value, 3)


def print_ranks(console: Console, study: RankStudy) -> None:
    """Prints what predicts the long loss, and the architectures, the best first."""
    settings = study.settings
    rows = [
        (
            str(one.width),
            one.shorthand,
            formatted("params", one.params),
            _number(one.short_loss, 4),
            _number(one.long_loss, 4),
        )
        for one in sorted(study.compared, key=lambda one: one.long_loss)
    ]
    names = ("width", "architecture", "parameters", "short loss [nats/token]", "long loss [nats/token]")
    show(console, sheet(names, rows, words=("architecture",)))
    for label, reason in study.failed.items():
        console.print(f"left out {label}: {reason}", soft_wrap=True, markup=False)
    budgets = f"{settings.proxy.tokens:,} tokens against {settings.long_tokens:,}"
    interval = f"{LEVEL:.0%} interval"
    summary = sheet(
        ("orders the long loss", "Spearman ρ", interval, "Kendall τ", interval),
        [
            (predictor, *_correlation(found["spearman"]), *_correlation(found["kendall"]))
            for predictor, found in study.correlations.items()
        ],
        words=("orders the long loss",),
        title=f"{len(study.compared)} architectures, {budgets}",
    )
    show(console, summary)


def _correlation(found: Correlation) -> tuple[str, str]:
    return f"{found.value:.3f}", f"{found.low:.3f} – {found.high:.3f}"


def _trained(settings: ExperimentSettings) -> str:
    """Returns how many tokens a model was trained with, and how often."""
    count = len(settings.seeds)
    return f"{settings.proxy.tokens:,} tokens, {count} seed{'s' if count > 1 else ''}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
