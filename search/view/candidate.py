"""One candidate or one architecture in full, for a terminal or a script."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from operators import Architecture, VisionLanguage
from operators.published.engines import ENGINES, LISTED, loads
from profiler.profile import Profile
from proxy_train.settings import ProxyScore
from proxy_train.task_settings import TaskScore
from search.evaluation.figures import formatted, percent, unit_of
from search.evaluation.outcome import Evaluation
from search.runs.entry import Entry
from search.runs.export import evaluation_json, provenance
from search.runs.folder import RunFolder
from search.runs.ledger import Ledger
from search.view.difference import shape_text
from search.view.profiles import print_conditions, print_remarks, timings
from search.view.tables import MARK, spreads, taint_notes
from search.view.terminal_tables import Sheet, sheet, show
from search.view.vision_profiles import answered, first_tokens, vision_parts


def candidate_json(folder: RunFolder, ledger: Ledger, entry: Entry) -> dict[str, Any]:
    """Everything that the ledger has on a candidate.

    Its `evaluation` is the mean of both, where there are two; `first` is the one without the second.
    """
    again = entry.again.model_dump(mode="json") if entry.again else None
    if again is not None and entry.again is not None and entry.again.evaluation is not None:
        again["evaluation"] = evaluation_json(entry.again.evaluation)
    return {
        "architecture": entry.architecture.model_dump(mode="json"),
        "shorthand": entry.architecture.shorthand,
        "loads_in": {
            engine: {"name": answer.name, "reason": answer.reason}
            for engine in ENGINES
            if isinstance(entry.architecture, Architecture)
            for answer in (loads(entry.architecture, engine),)
        },
        "evaluation": evaluation_json(entry.evaluation) if entry.evaluation else None,
        "first": evaluation_json(entry.first) if entry.first else None,
        "again": again,
        "tainted": entry.tainted(),
        "spread": spreads(entry),
        "provenance": provenance(folder, ledger, entry),
    }


def print_candidate(console: Console, folder: RunFolder, entry: Entry) -> None:
    evaluation, architecture = entry.evaluation, entry.architecture
    parents = f", parents {', '.join(map(str, entry.parents))}" if entry.parents else ""
    status = evaluation.status if evaluation else "unfinished"
    console.print(
        f"candidate {entry.number} of {folder.name} ({entry.origin}{parents}): {status}", soft_wrap=True
    )
    if evaluation and evaluation.reason:
        console.print(evaluation.reason, soft_wrap=True, markup=False)
    for audit in evaluation.audits if evaluation else ():
        console.print(
            f"let through gate {audit.gate} for an audit: {audit.reason}", soft_wrap=True, markup=False
        )
    console.print(
        f"{architecture.shorthand}\nwidth {architecture.width}, depth {architecture.depth}, "
        f"digest {architecture.digest()[:12]}",
        soft_wrap=True,
        markup=False,
    )
    if isinstance(architecture, VisionLanguage):
        show(console, vision_parts(architecture))
        show(console, _layers(architecture.language))
    else:
        for line in _loads_in(architecture):
            console.print(line, soft_wrap=True, markup=False)
        show(console, _layers(architecture))
    if evaluation is None:
        return
    show(console, _metrics(entry))
    profiles = _titled_profiles(entry)
    if profiles:
        show(console, timings(profiles))
        if any(profile.vision for _, profile in profiles):
            show(console, first_tokens(profiles))
        print_remarks(console, profiles)
    for kind, profile in evaluation.each_profile.items():
        print_conditions(console, profile, kind)
    for line in trainings(entry, evaluation):
        console.print(line, soft_wrap=True, markup=False)
    for label, mapping in (
        ("backends", evaluation.backends),
        ("seconds", evaluation.seconds),
        ("versions", evaluation.versions),
    ):
        listed = ", ".join(f"{key} {formatted(key, value)}" for key, value in mapping.items())
        console.print(f"{label}: {listed}", soft_wrap=True, markup=False)
    if evaluation.traceback:
        console.print(evaluation.traceback, markup=False, soft_wrap=True)


def trainings(entry: Entry, evaluation: Evaluation) -> list[str]:
    """Lines on how a candidate was trained: on text, on images and on tasks."""
    lines = []
    for score in (each.proxy for each in _evaluations(entry) if each.proxy is not None):
        lines.append(
            f"trained on {score.tokens:,} tokens in {score.seconds:.1f} s "
            f"({score.tokens_per_s:,.0f} tokens/s) with seed {score.seed}; loss {score.loss:.4f} nats/token, "
            f"a unigram model has {score.unigram_loss:.4f} on the same text"
        )
    for answers in (each.vision for each in _evaluations(entry) if each.vision is not None):
        lines += answered(answers)
    second = entry.again.evaluation if entry.again else None
    if second is not None and second.status != "ok":
        lines.append(f"evaluated a second time, with seed {second.seed}: {second.status}: {second.reason}")
    if evaluation.proxy_width is not None:
        lines.append(f"trained at width {evaluation.proxy_width}, measured at {entry.architecture.width}")
    return [*lines, *map(task_line, evaluation.tasks)]


def _loads_in(architecture: Architecture) -> list[str]:
    """A line for each engine. A server's answer is that of its list."""
    lines = []
    for engine in ENGINES:
        answer = loads(architecture, engine)
        if answer.reason:
            lines.append(f"does not load in {engine}: {answer.reason}")
        elif engine in LISTED:
            lines.append(f"listed by {engine} {LISTED[engine][0]}, not tried: {answer.name}")
        else:
            lines.append(f"loads in {engine}: {answer.name}")
    return lines


def _layers(architecture: Architecture) -> Sheet:
    rows = []
    for number, layer in enumerate(architecture.layers):
        norm = f"{layer.norm} {layer.norm_position}"
        rows.append((str(number), layer.operator, shape_text(layer), norm))
    return sheet(("layer", "operator", "shape", "norm"), rows, words=("operator", "shape", "norm"))


def _evaluations(entry: Entry) -> list[Evaluation]:
    """The only evaluation, or both where the figures are the means of two."""
    second = entry.again.evaluation if entry.again else None
    if entry.first is None or second is None or second.status != "ok" or entry.first.status != "ok":
        return [entry.evaluation] if entry.evaluation else []
    return [entry.first, second]


def _metrics(entry: Entry) -> Sheet:
    """A row for each metric: its figure and spread; both figures and the mean where there are two."""
    evaluations = _evaluations(entry)
    known, spread, tainted = entry.evaluation, spreads(entry), entry.tainted()
    rows = []
    for name, value in known.metrics.items() if known else ():
        figures: list[tuple[float | None, Mapping[str, str]]] = [(value, tainted)]
        if len(evaluations) > 1:
            figures += [(each.metrics.get(name), each.tainted()) for each in evaluations]
        cells = [f"{formatted(name, one)}{MARK if name in marks else ''}" for one, marks in figures]
        rows.append((name, *cells, f"± {percent(spread[name])}" if name in spread else "", unit_of(name)))
    twice = [f"seed {each.seed}" for each in evaluations] if len(evaluations) > 1 else []
    if len(set(twice)) < len(twice):
        twice = ["first", "second"]
    names = ("metric", "mean" if twice else "value", *twice, "spread", "unit")
    return sheet(
        names,
        rows,
        words=("metric", "spread", "unit"),
        title="evaluated twice: the mean and both evaluations" if twice else "",
        notes=taint_notes({entry.number: list(tainted.values())}),
    )


def _titled_profiles(entry: Entry) -> list[tuple[str, Profile]]:
    evaluations = _evaluations(entry)
    return [
        (
            " ".join(
                [str(entry.number), *([f"seed {each.seed}"] if len(evaluations) > 1 else []), kind]
            ).strip(),
            profile,
        )
        for each in evaluations
        for kind, profile in each.each_profile.items()
    ]


def print_score(console: Console, score: ProxyScore, *, share: float) -> None:
    """Prints how well an architecture learned, and how fast.

    share: of the rate of a matrix product on the device.
    """
    for budget in score.budgets:
        console.print(
            f"after {budget.tokens:,} tokens: validation loss {budget.loss:.4f} nats/token, "
            f"{budget.bits_per_byte:.4f} bits per byte"
        )
    for line in (
        f"validation loss {score.loss:.4f} nats per token; "
        f"the unigram entropy of the data is {score.unigram_loss:.4f} on the same tokens",
        f"perplexity {score.perplexity:.2f}, {score.bits_per_byte:.4f} bits per byte",
        f"{score.tokens_per_s:,.0f} tokens/s, {share:.0%} of the rate of a matrix product here; "
        f"{score.dtype}, {score.execution}",
        f"{score.seconds:.1f} s, of which {score.startup_s:.1f} s until kernels were ready",
    ):
        console.print(line)


def task_line(score: TaskScore) -> str:
    return (
        f"{score.task}: accuracy {score.accuracy:.3f}, of a guess {score.chance:.3f}, "
        f"after {score.tokens:,} tokens in {score.seconds:.1f} s"
    )
