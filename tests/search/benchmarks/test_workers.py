"""A search through Ray whose evaluations are made up, and what counts as lost or doubled in its ledger."""

import dataclasses

import pytest

from operators import Architecture
from search.benchmarks.library.workers import lost_and_doubled, through_ray
from search.evaluation.outcome import Evaluation
from search.runs.entry import Attempt, Entry

NOTHING = {"lost": 0, "doubled": 0, "begun_again": 0}
AT = Attempt.model_validate({"at": "2026-01-01T00:00:00Z", "place": "here"})


def entry(number: int) -> Entry:
    architecture = Architecture.from_shorthand("a f", width=64 * (number + 1), vocabulary=100)
    evaluation = Evaluation(status="ok", seed=0)
    return Entry(number, architecture, (), "random", evaluation=evaluation, order=number, attempts=(AT,))


ENTRIES = tuple(entry(number) for number in range(4))


def test_a_whole_ledger_has_lost_and_doubled_nothing() -> None:
    assert lost_and_doubled(ENTRIES, 4) == NOTHING


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, {"lost": 1}),
        (dataclasses.replace(ENTRIES[3], evaluation=None, order=None), {"lost": 1}),
        (dataclasses.replace(ENTRIES[3], order=2), {"doubled": 1}),
        (dataclasses.replace(ENTRIES[3], number=2), {"lost": 1, "doubled": 1}),
        (dataclasses.replace(ENTRIES[3], model=ENTRIES[0].architecture), {"doubled": 1}),
        (dataclasses.replace(ENTRIES[3], attempts=(AT, AT)), {"begun_again": 1}),
    ],
)
def test_what_is_lost_or_doubled_is_counted(last: Entry | None, expected: dict[str, int]) -> None:
    entries = (*ENTRIES[:3], *([last] if last else []))
    assert lost_and_doubled(entries, 4) == {**NOTHING, **expected}


@pytest.mark.slow
def test_a_search_through_ray_loses_and_doubles_nothing() -> None:
    figures = through_ray(2, 15)
    assert figures["evaluations"] == 30
    assert figures["workers_at_the_end"] == 2
    assert {name: figures[name] for name in NOTHING} == NOTHING
