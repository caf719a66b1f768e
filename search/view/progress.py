"""What a person sees while a search runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from search.objectives import Objective
from search.runs.frontier import frontier_of
from search.runs.loop import Progress as Standing


def duration(seconds: float | None) -> str:
    """`1:02:03` or `2:03`; `?` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def sentence(standing: Standing, objectives: tuple[Objective, ...]) -> str:
    """Candidates done and failed, best loss, frontier size and time left, in one line."""
    best = f"{standing.best_loss:.4f} nats/token" if standing.best_loss is not None else "-"
    return (
        f"{standing.done}/{standing.total} done, {standing.failed} failed, {standing.running} running, best loss {best}, "
        f"frontier {len(frontier_of(standing.entries, objectives))}, {duration(standing.seconds_left)} left"
    )


@contextmanager
def display(console: Console, objectives: tuple[Objective, ...]) -> Iterator[Callable[[Standing], None]]:
    """Yields the function that shows a standing: a live bar in a terminal, elsewhere a line after every evaluation."""
    if not console.is_terminal:
        shown = -1

        def line(standing: Standing) -> None:
            nonlocal shown
            if standing.done != shown:
                shown = standing.done
                console.print(sentence(standing, objectives), soft_wrap=True)

        yield line
        return

    # Redrawn on news alone, so that the display does not load the machine while it is measured.
    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"))
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("starting workers")

        def update(standing: Standing) -> None:
            bar.update(
                task,
                total=standing.total,
                completed=standing.done,
                description=sentence(standing, objectives),
                refresh=True,
            )

        yield update
