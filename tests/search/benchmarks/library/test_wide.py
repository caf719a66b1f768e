"""`bench wide`: the figures of a search and of its promotion, against numbers worked out by hand."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from operators import Architecture
from operators.base.errors import ConfigError
from search.benchmarks import runs as runs_of
from search.benchmarks.library.wide import pair, promotion_figures, search_figures, searched_from_empty
from search.config import run as config_module
from search.config.run import RunConfig
from search.evaluation.outcome import Evaluation
from search.runs.entry import Again, Attempt, Entry
from search.studies.promoted import Member, Promotion, compared

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
ARCHITECTURE = Architecture.from_shorthand("a f", width=64, vocabulary=512)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def evaluation(status: str, seconds: Mapping[str, float]) -> Evaluation:
    return Evaluation.model_validate({"status": status, "seconds": seconds, "seed": 0})


def entry(number: int, begun: float, ended: float, status: str = "ok", **seconds: float) -> Entry:
    attempts, found = (Attempt(at=at(begun), place="here"),), evaluation(status, seconds)
    return Entry(number, ARCHITECTURE, (), "random", found, number, attempts, at(ended))


# Two at a time: one that compiled for long beside one that is measured and trained, then four more.
ENTRIES = [
    entry(0, 0, 40, profile=2, wait=28, train=10),
    entry(1, 0, 20, profile=3, wait=12, train=5),
    entry(2, 20, 50, "stopped", profile=4, wait=20, train=6),
    entry(3, 40, 60, profile=2, wait=12, train=5),
    entry(4, 50, 70, profile=2, wait=13, train=5),
    entry(5, 60, 80, profile=2, wait=5, train=11),
    entry(6, 70, 100, profile=6, wait=22, train=0),
]


def test_times_of_a_search_are_those_of_its_candidates_in_the_order_of_their_ends() -> None:
    found = search_figures(ENTRIES, devices=1, at_once=2)
    assert (found["candidates"], found["ok"], found["stopped"]) == (7, 6, 1)
    assert (found["first_s"], found["first_six_s"], found["search_s"]) == (20.0, 80.0, 100.0)
    assert found["candidates_per_hour"] == pytest.approx(7 * 36)
    assert found["candidates_per_hour_after_first"] == pytest.approx(6 * 45)  # in 80 s
    assert found["first_six.wait_s"] == pytest.approx((28 + 12 + 20 + 12 + 13 + 5) / 6)
    assert found["candidate.wait_s"] == pytest.approx((28 + 12 + 20 + 12 + 13 + 5 + 22) / 7)
    assert found["candidate.profile_s"] == pytest.approx(21 / 7)


def test_measurements_add_up_and_trainings_overlap_at_most_as_often_as_evaluations() -> None:
    found = search_figures(ENTRIES, devices=1, at_once=2)
    assert found["measured_share"] == pytest.approx(0.21)
    assert (found["trained_s"], found["busy_at_least"]) == (42.0, pytest.approx(0.21 + 0.21))
    # The same on two devices with two evaluations each: each is busy for half as long.
    found = search_figures(ENTRIES, devices=2, at_once=4)
    assert (found["measured_share"], found["busy_at_least"]) == (pytest.approx(0.105), pytest.approx(0.21))


def test_second_evaluations_take_time_and_are_no_candidates() -> None:
    again = Again(
        attempts=(Attempt(at=at(100), place="here"),),
        evaluation=evaluation("ok", {"profile": 4, "train": 8}),
        ended=at(120),
    )
    found = search_figures([*ENTRIES[:-1], ENTRIES[-1].with_again(again)], devices=1, at_once=2)
    assert (found["candidates"], found["search_s"]) == (7, 120.0)
    assert (found["measured_share"], found["trained_s"]) == (pytest.approx(25 / 120), 50.0)


@pytest.mark.parametrize("earlier", [False, True])
def test_of_a_search_that_began_earlier_nothing_is_told_of_its_beginning(
    earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(config: RunConfig, **named: object) -> tuple[list[Entry], Path]:
        begun = datetime.now(UTC) - timedelta(hours=1) if earlier else datetime.now(UTC)
        found = evaluation("ok", {"profile": 2})
        attempts = (Attempt(at=begun, place="here"),)
        ended = begun + timedelta(seconds=5)
        return [Entry(0, ARCHITECTURE, (), "random", found, 0, attempts, ended)], Path("run")

    monkeypatch.setattr(runs_of, "searched", searched)
    config = config_module.load(Path("quick"))
    _, _, figures = searched_from_empty(config, "wide", "cpu", Console())
    assert (figures["first_s"], "before_first_s" in figures) == (5.0, not earlier)


def test_a_search_of_fewer_candidates_has_no_figures_of_six() -> None:
    found = search_figures(ENTRIES[:1], devices=1, at_once=2)
    assert found["first_s"] == 40.0
    assert not any(name.startswith("first_six") for name in found)
    assert "candidates_per_hour_after_first" not in found


@pytest.mark.parametrize(
    "entries", [[], [Entry(0, ARCHITECTURE, (), "random", attempts=(Attempt(at=BEGIN, place=""),))]]
)
def test_without_a_candidate_that_ended_there_are_no_figures(entries: list[Entry]) -> None:
    expected = f"bench wide: expected candidates that ended, got none of {len(entries)}"
    with pytest.raises(ConfigError, match=expected):
        search_figures(entries, devices=1, at_once=2)


def member(candidate: int, rival: str, ms: float, *losses: float, problem: str = "") -> Member:
    problems = {0: problem} if problem else {}
    return Member(
        rival or str(candidate), candidate, rival, 1000, 64, 2, ms, (), dict(enumerate(losses)), problems
    )


def test_a_pair_has_both_times_the_difference_its_interval_and_the_verdict() -> None:
    members = (
        member(7, "", 0.50, 4.0, 4.2, 4.1),
        member(7, "flash", 0.51, 4.1, 4.3, 4.2),
        member(3, "", 0.40, 3.0, 3.0, 3.0),
        member(3, "flash", 0.40, 2.6, 2.7, 2.7),
        member(9, "", 0.30, 5.0),
        member(9, "flash", 0.30, problem="diverged: not finite"),
    )
    pairs = tuple(compared(*members[first : first + 2]) for first in (0, 2, 4))
    found = promotion_figures(
        Promotion("wide", Path("wide"), 4000, (0, 1, 2), "decode_ms@b1", members, pairs)
    )
    assert (found["tokens"], found["seeds"], found["pairs"]) == (4000, 3, 3)
    assert (found["better"], found["worse"]) == (1, 1)
    assert found["7 against flash.difference"] == pytest.approx(0.1)
    assert found["7 against flash.verdict"] == "better"
    assert (found["7 against flash.candidate_ms"], found["7 against flash.rival_ms"]) == (0.50, 0.51)
    # By hand: differences of -0.4, -0.3 and -0.3 have a standard error of 1/30, and Student's t is 4.3027.
    assert found["3 against flash.difference_low"] == pytest.approx(-1 / 3 - 4.3027 / 30, abs=1e-5)
    assert found["3 against flash.difference_high"] == pytest.approx(-1 / 3 + 4.3027 / 30, abs=1e-5)
    assert "9 against flash.difference" not in found
    assert found["9 against flash.verdict"] == "cannot tell"


def test_a_row_of_a_pair_has_the_losses_of_each_seed_and_why_nothing_can_be_told() -> None:
    row = pair(compared(member(9, "", 0.30, 5.0, 5.2), member(9, "flash", 0.45, 5.4, 5.5)))
    assert (row["candidate"], row["rival"], row["time_ratio"]) == (9, "flash", pytest.approx(1.5))
    assert (row["candidate_losses"], row["rival_loss"]) == ([5.0, 5.2], pytest.approx(5.45))
    failed = pair(compared(member(9, "", 0.30, 5.0), member(9, "flash", 0.30, problem="diverged: nan")))
    assert (failed["difference"], failed["remark"]) == (None, "flash, seed 0: diverged: nan")
