"""The benchmark of exported winners: which of a frontier it takes."""

import pytest

from operators import Architecture
from search.benchmarks.library.exported import at_least, spread
from search.evaluation.outcome import Evaluation
from search.objectives import Objective
from search.runs.entry import Entry

LATENCY = "decode_ms@b1"
ARCHITECTURE = Architecture.from_shorthand("a f", width=64, vocabulary=300)


def frontier(*times: float) -> list[Entry]:
    scores = [Evaluation(status="ok", metrics={LATENCY: time}, seed=0) for time in times]
    return [Entry(n, ARCHITECTURE, (), "random", score, order=n) for n, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        ([3.0], [3.0]),
        ([3.0, 1.0], [1.0, 3.0]),
        ([5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 3.0, 5.0]),
        ([8.0, 1.0, 2.0, 9.0], [1.0, 8.0, 9.0]),
    ],
)
def test_the_ends_and_the_middle_are_taken_the_fastest_first(times: list[float], taken: list[float]) -> None:
    chosen = spread(frontier(*times), LATENCY)
    assert [found.evaluation.metrics[LATENCY] for found in chosen if found.evaluation] == taken


@pytest.mark.parametrize(
    ("points", "taken"),
    [
        ([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 3.0)], [0, 1, 2]),
        ([(1.0, 1.0), (3.0, 3.0), (2.0, 2.0), (4.0, 4.0)], [0, 2]),  # of the others, 2 dominates
        ([(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 1.5)], [0, 1, 2]),
        ([(1.0, 1.0)], [0]),
    ],
)
def test_a_small_frontier_is_filled_up_from_that_of_the_others(
    points: list[tuple[float, float]], taken: list[int]
) -> None:
    scores = [Evaluation(status="ok", metrics={"loss": loss, LATENCY: time}, seed=0) for loss, time in points]
    entries = [Entry(n, ARCHITECTURE, (), "random", score, order=n) for n, score in enumerate(scores)]
    objectives = (Objective("loss", maximize=False), Objective(LATENCY, maximize=False))
    assert [found.number for found in at_least(3, entries, objectives)] == taken
