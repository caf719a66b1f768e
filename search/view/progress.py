"""What a person sees while a search runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from search.runs.progress import (
    Checking,
    DesignsLeftOut,
    Event,
    FewerWorkers,
    Interrupted,
    TrackerFailed,
    UnknownTokens,
)
from search.runs.progress import Progress as Standing
from search.view.text_read import print_source

BAR_WIDTH = 24  # the sentence behind the bar needs the rest of a line


def duration(seconds: float | None) -> str:
    """`1:02:03` or `2:03`; `?` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sentence(standing: Standing) -> str:
    """Candidates done and failed, best loss, frontier size and time left, in one line."""
    best = f"{standing.best_loss:.4f} nats/token" if standing.best_loss is not None else "-"
    return (
        f"{standing.done}/{standing.total} done, {standing.failed} failed, {standing.running} running, "
        f"best loss {best}, frontier {len(standing.frontier)}, {duration(standing.seconds_left)} left"
    )


def print_event(console: Console, event: Event) -> None:
    """Says what a search reports while it starts."""
    match event:
        case Checking():
            console.print("preparing the text and checking the configuration", soft_wrap=True)
        case UnknownTokens():
            console.print(
                f"the tokenizer has no token for some of the text: {event.unknown:,} of {event.tokens:,} "
                "validation tokens are its unknown token",
                soft_wrap=True,
            )
        case FewerWorkers():
            console.print(
                f"workers: {event.wanted} asked for, {event.workers} work: this machine has "
                f"{event.cores} cores",
                soft_wrap=True,
            )
        case DesignsLeftOut():
            listed = ", ".join(f"{name} ({reason})" for name, reason in event.reasons.items())
            console.print(
                f"space.exportable_to: the search does not begin with these published designs: {listed}",
                soft_wrap=True,
                markup=False,
            )
        case TrackerFailed(name=name, reason=reason):
            console.print(
                f"trackers: {name} failed, the search goes on without it: {reason}",
                soft_wrap=True,
                markup=False,
            )
        case _:
            print_source(console, event)


@contextmanager
def display(console: Console) -> Iterator[Callable[[Standing], None]]:
    """Yields the function that shows where a search stands; says how to go on where it is interrupted.

    In a terminal that is a live bar, elsewhere a line after every evaluation.
    """
    try:
        with _bar(console) if console.is_terminal else _lines(console) as show:
            yield show
    except Interrupted as stop:
        console.print(
            f"\ninterrupted: {stop.done} of {stop.candidates} candidates are evaluated and recorded; "
            f"go on with `{stop.resume}`",
            soft_wrap=True,
        )
        raise


@contextmanager
def _lines(console: Console) -> Iterator[Callable[[Standing], None]]:
    done = -1

    def show(standing: Standing) -> None:
        nonlocal done
        if standing.done != done:
            done = standing.done
            console.print(sentence(standing), soft_wrap=True)

    yield show


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[Standing], None]]:
    columns = (BarColumn(bar_width=BAR_WIDTH), TextColumn("{task.description}"))
    # It is redrawn on news alone, so that it does not load the machine while candidates are measured.
    bar = Progress(*columns, console=console, auto_refresh=False)
    task = bar.add_task("")

    def show(standing: Standing) -> None:
        bar.start()  # with the first news: a run that is complete has no bar
        bar.update(
            task,
            total=standing.total,
            completed=standing.done,
            description=sentence(standing),
            refresh=True,
        )

    try:
        yield show
    finally:
        bar.stop()
