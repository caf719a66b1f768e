"""Surrogates against what they must come to: other derivations of the same numbers, coverage on data that
they never saw.
"""

from itertools import pairwise

import numpy as np
import pytest

from search.searchers.forecast import FEWEST, Fit, fit_of, fit_uses, forecast, next_fit
from search.searchers.surrogate import (
    NUGGET,
    Kernel,
    conditioned,
    extended_root,
    first_kernel,
    fitted,
    inverse_root,
    log_probability_slope,
)

RNG = np.random.default_rng(0)


def standardized(rows: np.ndarray) -> np.ndarray:
    return (rows - rows.mean(0)) / rows.std(0)


def data(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two features of six matter, with a curve, a product and noise of 0.1."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 6))
    return rows, np.sin(rows[:, 0]) + rows[:, 1] ** 2 / 2 + rows[:, 0] * rows[:, 1] / 2 + 0.1 * rng.normal(
        size=count
    )


def fit_anew(rows: np.ndarray, scores: np.ndarray, known: np.ndarray, times: np.ndarray) -> Fit:
    """A fit to all of these that it uses."""
    active = fit_uses(scores)
    return fit_of(active, rows[active], scores[active], known[active], times[active], told=len(scores))


def log_probability(logs: np.ndarray, x: np.ndarray, y: np.ndarray, times: np.ndarray) -> float:
    kernel = Kernel(logs)
    covariance = kernel(x, x)[0] + kernel.noise * np.diag(1 / times)
    return float(-0.5 * y @ np.linalg.solve(covariance, y) - 0.5 * np.linalg.slogdet(covariance)[1])


@pytest.mark.parametrize("times", [np.ones(25), np.arange(25) % 2 + 1.0])
def test_slope_is_the_derivative_of_the_probability(times: np.ndarray) -> None:
    x, y = data(25, 1)
    logs = first_kernel(6).logs + 0.3 * RNG.normal(size=11)
    steps = 1e-5 * np.eye(11)
    numeric = [
        (log_probability(logs + step, x, y, times) - log_probability(logs - step, x, y, times)) / 2e-5
        for step in steps
    ]
    assert log_probability_slope(logs, x, y, times) == pytest.approx(numeric, rel=1e-4, abs=1e-4)


def test_the_mean_of_two_counts_as_two() -> None:
    """One value that stands for two with half the noise predicts the same as the same row twice."""
    x, y = data(12, 3)
    unseen, _ = data(5, 4)
    kernel = first_kernel(6)
    once = conditioned(kernel, x, y, np.array([2.0] + [1.0] * 11)).predict(unseen)[0]
    doubled = conditioned(
        kernel, np.vstack([x, x[:1]]), np.concatenate([[y[0] + 0.3], y[1:], [y[0] - 0.3]])
    ).predict(unseen)[0]
    assert once == pytest.approx(doubled)


def test_variance_and_noise_are_those_of_the_covariance() -> None:
    x, _ = data(9, 2)
    kernel = Kernel(first_kernel(6).logs + 0.3 * RNG.normal(size=11))
    assert kernel.variance(x) == pytest.approx(np.diag(kernel(x, x)[0]))
    assert kernel.noise == pytest.approx(np.exp(kernel.logs[6]) + NUGGET)


def test_leave_one_out_is_leaving_one_out() -> None:
    x, y = data(20, 3)
    kernel = first_kernel(6)
    whole = conditioned(kernel, x, y)
    for number in (0, 7, 19):
        rest = np.arange(20) != number
        covariance = kernel(x[rest], x[rest])[0] + kernel.noise * np.eye(19)
        across = kernel(x[[number]], x[rest])[0][0]
        mean = across @ np.linalg.solve(covariance, y[rest])
        variance = (
            kernel.variance(x[[number]])[0] + kernel.noise - across @ np.linalg.solve(covariance, across)
        )
        assert whole.errors[number] == pytest.approx((y[number] - mean) / np.sqrt(variance))


@pytest.mark.parametrize("seed", range(5))
def test_a_root_that_is_extended_inverts_the_covariance(seed: int) -> None:
    """Against a general inverse: after 70 rows of which many are equal, and some are means of two."""
    rng = np.random.default_rng(seed)
    x, values = rng.integers(0, 3, (80, 3)).astype(float), rng.normal(size=80)
    unseen, times = rng.normal(size=(9, 3)), rng.integers(1, 3, 80).astype(float)
    kernel = Kernel(first_kernel(3).logs + rng.normal(size=8))
    inverse = np.linalg.inv(kernel(x, x)[0] + np.diag(kernel.noise / times))
    root = inverse_root(kernel, x[:10], times[:10])
    found = conditioned(kernel, x, values, times, root=root)
    assert np.abs(found.root.T @ found.root - inverse).max() < 1e-8 * np.abs(inverse).max()
    assert found.dual == pytest.approx(inverse @ values, rel=1e-8, abs=1e-8 * np.abs(found.dual).max())
    across, near = kernel(unseen, x)
    left = kernel.variance(unseen) + kernel.noise - np.einsum("kn,nm,km->k", across, inverse, across)
    squares = (inverse @ values) ** 2 / np.diag(inverse)
    spread = (near @ squares + squares.mean()) / (near.sum(1) + 1)
    mean, deviation = found.predict(unseen)
    assert np.array_equal(mean, found.means(unseen))
    assert mean == pytest.approx(across @ inverse @ values, rel=1e-8, abs=1e-8)
    assert deviation == pytest.approx(np.sqrt(spread * left), rel=1e-8)


def test_a_root_does_not_depend_on_how_many_rows_come_at_once() -> None:
    x, _ = data(30, 11)
    kernel, times = first_kernel(6), np.ones(30)
    first = inverse_root(kernel, x[:12], times[:12])
    at_once = extended_root(first, kernel, x, times)
    for count in (13, 14, 20, 30):
        first = extended_root(first, kernel, x[:count], times[:count])
    assert np.array_equal(first, at_once)


@pytest.mark.parametrize("again", [False, True])
def test_an_earlier_forecast_only_saves_time(again: bool) -> None:
    """Even where a second evaluation has since changed a row that it learned from."""
    x, y = data(40, 13)
    scores, known, times = np.column_stack([y, -y]), np.full((40, 2), np.nan), np.ones(40)
    fit = fit_anew(x[:20], scores[:20], known[:20], times[:20])
    before = forecast(fit, x[:30], scores[:30], known[:30], times[:30].copy())
    times[5] += again
    with_it = forecast(fit, x, scores, known, times, before=before).predict(x + 0.1, known)
    without = forecast(fit, x, scores, known, times).predict(x + 0.1, known)
    assert np.array_equal(with_it, without)


def test_a_root_that_rounding_has_spoiled_is_made_anew() -> None:
    x, _ = data(20, 12)
    kernel, times = first_kernel(6), np.ones(20)
    spoiled = 3 * inverse_root(kernel, x[:15], times[:15])
    assert np.array_equal(
        extended_root(spoiled, kernel, x[:16], times[:16]), inverse_root(kernel, x[:16], times[:16])
    )


def test_fitting_finds_what_matters_and_predicts_it() -> None:
    x, y = data(120, 4)
    unseen, truth = data(400, 5)
    center, scale = y.mean(), y.std()
    kernel = fitted(first_kernel(6), x, (y - center) / scale, steps=60)
    assert set(np.argsort(kernel.logs[:6])[-2:]) == {0, 1}
    found = conditioned(kernel, x, (y - center) / scale)
    mean, _ = found.predict(unseen)
    assert found.skill > 0.9
    assert np.corrcoef(mean, truth)[0, 1] ** 2 > 0.9
    line = np.linalg.lstsq(np.c_[x, np.ones(120)], y, rcond=None)[0]
    assert np.mean((mean * scale + center - truth) ** 2) < 0.2 * np.mean(
        (np.c_[unseen, np.ones(400)] @ line - truth) ** 2
    )


@pytest.mark.parametrize("count", [30, 100])
def test_deviations_cover_what_was_not_seen(count: int) -> None:
    """68 % of a normal distribution lie within one deviation, 95 % within two."""
    within = []
    for seed in range(4):
        x, y = data(count, seed)
        unseen, truth = data(200, 100 + seed)
        center, scale = y.mean(), y.std()
        mean, deviation = conditioned(
            fitted(first_kernel(6), x, (y - center) / scale, steps=30), x, (y - center) / scale
        ).predict(unseen)
        within.append(
            [np.mean(np.abs(mean * scale + center - truth) < factor * deviation * scale) for factor in (1, 2)]
        )
    one, two = np.mean(within, 0)
    assert 0.55 < one < 0.85
    assert 0.85 < two <= 1


def test_noise_has_no_skill() -> None:
    x = RNG.normal(size=(60, 6))
    y = standardized(RNG.normal(size=(60, 1)))[:, 0]
    assert conditioned(fitted(first_kernel(6), x, y, steps=30), x, y).skill < 0.25


def test_fits_come_due_at_growing_intervals() -> None:
    counts = [FEWEST]
    while counts[-1] < 1000:
        counts.append(next_fit(counts[-1]))
    assert all(3 + earlier // 10 > later - earlier >= 2 for earlier, later in pairwise(counts))
    assert len(counts) < 50
    # Later a fit has at most a bounded number of scores behind it, as forecasts learn from all of these.
    assert next_fit(2000) - 2000 == next_fit(100_000) - 100_000 == 202


def test_what_is_known_is_taken_and_its_error_learned() -> None:
    """The second objective comes from a table that is off by a term which the features tell."""
    x, y = data(60, 7)
    unseen, truth = data(50, 8)
    table = np.exp(RNG.normal(size=110))
    off = 0.1 * np.concatenate([x[:, 2], unseen[:, 2]])
    scores = np.column_stack([y, (table + off)[:60]])
    known = np.column_stack([np.full(110, np.nan), table])
    fit = fit_anew(x, scores, known[:60], np.ones(60))
    expected = forecast(fit, x, scores, known[:60], np.ones(60))
    without = forecast(
        fit_anew(x, scores, known[:60] * np.nan, np.ones(60)), x, scores, known[:60] * np.nan, np.ones(60)
    )
    target = expected.warped(np.column_stack([truth, (table + off)[60:]]))
    error = np.abs(expected.predict(unseen, known[60:])[0] - target).mean(0)
    blind = np.abs(without.predict(unseen, known[60:] * np.nan)[0] - target).mean(0)
    assert error[1] < 0.1 * blind[1]
    assert error[0] == pytest.approx(blind[0], rel=0.05)


def test_warping_keeps_the_order_and_what_is_good() -> None:
    x, _ = data(40, 9)
    scores = np.exp(3 * RNG.normal(size=(40, 1)))
    expected = forecast(
        fit_anew(x, scores, scores * np.nan, np.ones(40)), x, scores, scores * np.nan, np.ones(40)
    )
    warped = expected.warped(scores)[:, 0]
    assert (np.argsort(warped) == np.argsort(scores[:, 0])).all()
    good = scores[:, 0] <= np.median(scores)
    assert warped[good] == pytest.approx(scores[good, 0])
    assert warped.max() < scores.max() / 5


def test_a_constant_is_nothing_to_foresee() -> None:
    x, _ = data(40, 10)
    scores = np.column_stack([np.random.default_rng(3).normal(size=40), np.zeros(40)])
    nothing = scores * np.nan
    assert forecast(fit_anew(x, scores, nothing, np.ones(40)), x, scores, nothing, np.ones(40)).skill < 0.5
