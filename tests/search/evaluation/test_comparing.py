"""Comparing two architectures, with workers that only pretend to measure."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from operators import Architecture
from operators.base.errors import DeviceError
from profiler.profile import MOST_ERROR, ProfileSettings, error_of
from search.evaluation import comparing
from search.evaluation.comparing import LEAST_ROUNDS, compare
from tests.helpers.made_up_profile import exactly

A, B = (Architecture.from_shorthand(layers, width=16, vocabulary=64) for layers in ("a f", "a f a f"))
SETTINGS = ProfileSettings(batch_sizes=(3, 1))
DRIFT = "drift: the anchor model changed by 66.7%"


class Workers:
    """Each measures once.

    B takes `ratio` times as long as A, and the measurements with the numbers in `tainted` are.
    """

    def __init__(self, ratio: float, tainted: Sequence[int]) -> None:
        self.ratio, self.tainted = ratio, tainted
        self.measured: list[Architecture] = []
        self.open = self.ever = 0

    @contextmanager
    def started(self, device: str, count: int) -> Iterator[Sequence[object]]:
        assert device == "cpu"
        self.open += count
        self.ever += count
        yield [SimpleNamespace(profile=self._profile, close=self._close) for _ in range(count)]

    def _close(self) -> None:
        self.open -= 1

    def _profile(
        self, architecture: Architecture, settings: ProfileSettings, *, backend: str, deadline_s: float
    ) -> object:
        assert (settings, backend) == (SETTINGS, "auto")
        taints = {"decode_ms@b3": DRIFT} if len(self.measured) in self.tainted else {"prefill_ms@b3": "noise"}
        # The machine becomes slower with each round: only the ratio within a round says something.
        ms = (1 + len(self.measured) // 2) * (self.ratio if architecture == B else 1.0)
        self.measured.append(architecture)
        return SimpleNamespace(taints=lambda: taints, points=[SimpleNamespace(decode=exactly(ms))])


@pytest.fixture
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Workers:
    ratio, tainted = getattr(request, "param", (1.0, ()))
    made = Workers(ratio, tainted)
    monkeypatch.setattr(comparing, "started", made.started)
    return made


@pytest.mark.parametrize("workers", [(2.0, (1, 4, 5))], indirect=True)
def test_a_tainted_round_does_not_count_and_is_made_again(workers: Workers) -> None:
    heard: list[tuple[int, float, float]] = []
    found = compare(A, B, SETTINGS, device="cpu", rounds=4, on_round=lambda *round_: heard.append(round_))
    # Rounds 0 and 2 had a tainted side, so that rounds 4 and 5 were added. Even rounds begin with A, odd ones
    # with B.
    assert workers.measured == [A, B, B, A] * 3
    assert [number for number, _, _ in heard] == [1, 2, 3, 4]
    assert [a for _, a, _ in heard] == list(found.a_ms)
    assert [b for _, _, b in heard] == list(found.b_ms)
    assert len(found.a_ms) == 4
    assert (workers.ever, workers.open) == (12, 0)  # each was used and closed


@pytest.mark.parametrize("workers", [(2.0, range(0, 9, 2))], indirect=True)
def test_too_few_good_rounds_are_an_error_that_says_why(workers: Workers) -> None:
    with pytest.raises(
        DeviceError, match=rf"^device cpu: 1 of 6 rounds .* at least {LEAST_ROUNDS}: {DRIFT}$"
    ):
        compare(A, B, SETTINGS, device="cpu", rounds=3)


@pytest.mark.parametrize("workers", [(2.0, range(0, 6, 2))], indirect=True)
def test_the_least_number_of_good_rounds_is_enough(workers: Workers) -> None:
    assert len(compare(A, B, SETTINGS, device="cpu", rounds=3).a_ms) == LEAST_ROUNDS


FLOOR = error_of(exactly(1.0), "cpu")
"""What a frontier takes a figure without any noise of its own to be off by."""


@pytest.mark.parametrize(
    ("workers", "verdict"),
    [
        ((1.0, ()), "cannot tell"),
        (((1 + FLOOR) * 0.999, ()), "cannot tell"),
        ((0.999 / (1 + FLOOR), ()), "faster"),
        (((1 + FLOOR) * 1.5, ()), "slower"),
        ((1.001 / (1 + FLOOR), ()), "cannot tell"),
    ],
    indirect=["workers"],
)
def test_what_a_frontier_cannot_tell_apart_no_comparison_tells(workers: Workers, verdict: str) -> None:
    assert 0 < FLOOR < MOST_ERROR  # a figure without noise is clean
    assert compare(A, B, SETTINGS, device="cpu", rounds=3).verdict == verdict
