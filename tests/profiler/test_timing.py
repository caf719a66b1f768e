"""The stopping rule with a fake clock, and its statistics against numpy and simulation."""

from collections.abc import Callable, Iterable, Iterator
from statistics import NormalDist

import numpy as np
import pytest
from pydantic import ValidationError

from profiler.timing import SamplingSettings, Timing, sample, standard_error

SETTINGS = SamplingSettings(warmup=2, min_samples=10, min_seconds=0.1, max_seconds=2.0, relative_error=0.01)


class FakeRun:
    """Returns the given times in ms, and a clock that goes on by them."""

    def __init__(self, times_ms: Iterable[float]) -> None:
        self.times: Iterator[float] = iter(times_ms)
        self.now = 0.0
        self.calls = 0

    def __call__(self) -> float:
        elapsed = next(self.times)
        self.now += elapsed / 1e3
        self.calls += 1
        return elapsed

    def clock(self) -> float:
        return self.now


def endless(draw: Callable[[], float]) -> Iterator[float]:
    while True:
        yield draw()


def sampled(times_ms: Iterable[float], settings: SamplingSettings = SETTINGS) -> Timing:
    run = FakeRun(times_ms)
    return sample(run, settings=settings, clock=run.clock)


def test_statistics_are_numpys() -> None:
    times = np.random.default_rng(0).gamma(3.0, 2.0, 400)
    timing = sampled(times, SETTINGS.model_copy(update={"warmup": 0}))
    kept = times[: timing.n]
    assert timing.samples_ms == tuple(kept)
    assert timing.median_ms == pytest.approx(np.median(kept))
    assert timing.iqr_ms == pytest.approx(np.subtract(*np.percentile(kept, [75, 25])))
    assert timing.p90_ms == pytest.approx(np.percentile(kept, 90))


def test_warm_up_is_dropped() -> None:
    timing = sampled([1e6, 1e6, *[20.0] * 10])
    assert timing.samples_ms == (20.0,) * 10
    assert timing.stopped_by == "precision"


def test_a_steady_run_stops_at_the_minimum_of_samples() -> None:
    assert sampled([50.0] * 100).n == SETTINGS.min_samples


def test_a_steady_short_run_goes_on_for_the_minimum_of_seconds() -> None:
    assert sampled([1.0] * 1000).n == pytest.approx(100, abs=1)


def test_the_minimum_of_seconds_is_of_the_device_and_not_of_the_clock() -> None:
    run = FakeRun([1.0] * 1000)
    slow_host = sample(run, settings=SETTINGS, clock=lambda: 10 * run.now)
    assert slow_host.n == pytest.approx(100, abs=1)
    run = FakeRun([1.0] * 1000)
    assert sample(run, settings=SETTINGS, runs=4, clock=run.clock).n == pytest.approx(25, abs=1)


def test_the_clock_ends_it_where_the_host_takes_all_the_time() -> None:
    run = FakeRun([1.0] * 1000)
    timing = sample(run, settings=SETTINGS, clock=lambda: 100 * run.now)
    assert (timing.n, timing.stopped_by) == (pytest.approx(20, abs=1), "time")


def test_noise_needs_more_samples_and_more_noise_runs_out_of_time() -> None:
    random = np.random.default_rng(1)

    def noise(spread: float) -> Iterator[float]:
        return endless(lambda: random.normal(5, spread))

    quiet, noisy, hopeless = (sampled(noise(spread)) for spread in (0.01, 0.5, 1.5))
    assert quiet.n < noisy.n < hopeless.n
    assert (quiet.stopped_by, noisy.stopped_by, hopeless.stopped_by) == ("precision", "precision", "time")
    assert standard_error(sorted(noisy.samples_ms)) <= SETTINGS.relative_error * noisy.median_ms
    assert sum(hopeless.samples_ms) == pytest.approx(2000, rel=0.01)


def test_slow_runs_are_still_sampled_often_enough() -> None:
    random = np.random.default_rng(2)
    timing = sampled(endless(lambda: random.normal(5000, 1000)))
    assert (timing.n, timing.stopped_by) == (10, "time")


@pytest.mark.parametrize("n", [10, 25, 100, 800])
@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_standard_error_is_that_of_simulated_medians(n: int, draw: str) -> None:
    """On average within 10 % from 100 samples on; with fewer it errs on the safe side, by at most 30 %."""
    samples = np.sort(getattr(np.random.default_rng(3), draw)(size=(4000, n)), axis=1)
    true = np.median(samples, axis=1).std()
    estimated = np.mean([standard_error(row.tolist()) for row in samples[:1500]])
    assert (0.9 if n >= 100 else 1.0) < estimated / true < (1.1 if n >= 100 else 1.3)


def test_standard_error_follows_theory_for_many_samples() -> None:
    """σ √(π / 2n) for the normal distribution."""
    n = 10_001
    ordered = [NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]
    assert standard_error(ordered) == pytest.approx((np.pi / (2 * n)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_seconds": 3.0, "max_seconds": 1.0}, "min_seconds to be at most max_seconds"),
        ({"min_samples": 2}, "greater than or equal to 5"),
        ({"relative_error": 0.0}, "greater than 0"),
        ({"min_second": 1.0}, "unknown key min_second"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SamplingSettings.model_validate(change)
