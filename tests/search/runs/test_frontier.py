"""The order of the frontier's members by what each adds to its hypervolume."""

from operators import Architecture
from search.config.run import RunConfig
from search.evaluation.outcome import Evaluation
from search.runs.entry import Entry
from search.runs.frontier import by_contribution, scored

SCORES = [
    (4.0, 10.0),
    (3.0, 20.0),
    (2.9, 28.0),
    (2.0, 30.0),
    (4.0, 30.0),
]  # loss, time; the last is dominated


def entry(number: int, loss: float, ms: float) -> Entry:
    metrics = {"loss": loss, "decode_ms@b1": ms}
    architecture = Architecture.from_shorthand("a f", width=64, vocabulary=300)
    return Entry(number, architecture, (), "sample", Evaluation(status="ok", metrics=metrics, seed=0), number)


def test_what_adds_the_most_comes_first(tiny_config: RunConfig) -> None:
    entries = [entry(number, *scores) for number, scores in enumerate(SCORES)]
    objectives = tiny_config.parsed_objectives()
    frontier = scored(entries, objectives).frontier()
    assert {member.number for member in frontier} == {0, 1, 2, 3}
    # By hand, in units of both ranges (2 nats, 20 ms) with the reference at 1.1. The space that each adds:
    # 0: 0.1 by 0.5; 1: (1 - 0.5) by (0.9 - 0.5); 2: (0.5 - 0.45) by (1 - 0.9); 3: (0.45 - 0) by (1.1 - 1).
    added = {0: 0.05, 1: 0.2, 2: 0.005, 3: 0.045}
    expected = sorted(added, key=lambda number: -added[number])
    assert [member.number for member in by_contribution(frontier, entries, objectives)] == expected
    assert by_contribution([], entries, objectives) == []
