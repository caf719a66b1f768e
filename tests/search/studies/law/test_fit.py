"""The depth-width law: what a fit makes of points whose law is known, and which points it refuses."""

from dataclasses import astuple
from itertools import product

import numpy as np
import pytest
from scipy.optimize import nnls

from operators.base.errors import ConfigError
from search.studies.law.fit import Law, Points, check, fit, hold_out, nonnegative

TRUE = Law(floor=2.2, a=1.4, alpha=0.8, b=30.0, beta=0.7)
WITH_TOKENS = Law(floor=1.8, a=1.4, alpha=0.8, b=30.0, beta=0.7, c=300.0, gamma=0.45)


def points(
    law: Law,
    *,
    depths: tuple[int, ...] = (2, 4, 8, 16, 24),
    budgets: tuple[float, ...] = (1e6,),
    noise: float = 0.0,
    seed: int = 0,
) -> Points:
    depth, width, tokens = np.array(list(product(depths, (128, 256, 384, 512), budgets)), float).T
    wrong = 1 + noise * np.random.default_rng(seed).standard_normal(len(depth))
    return Points(depth, width, tokens, law.loss(depth, width, tokens) * wrong)


@pytest.mark.parametrize(("law", "budgets"), [(TRUE, (1e6,)), (WITH_TOKENS, (1e6, 3e6, 1e7))])
def test_exact_points_give_their_coefficients_and_exponents_back(
    law: Law, budgets: tuple[float, ...]
) -> None:
    found = fit(points(law, budgets=budgets), draws=1).law
    for name in ("floor", "a", "alpha", "b", "beta", "c", "gamma"):
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=0.01), name


def test_noise_moves_the_fit_little_and_extrapolation_stays_near_the_law() -> None:
    found = fit(points(TRUE, noise=0.003, seed=1), draws=1).law
    assert found.alpha == pytest.approx(TRUE.alpha, rel=0.1)
    assert found.beta == pytest.approx(TRUE.beta, rel=0.1)
    assert found.loss(48, 1024) == pytest.approx(float(TRUE.loss(48, 1024)), rel=0.01)


def test_intervals_cover_the_law_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(9):
        low, high = fit(points(TRUE, noise=0.005, seed=seed), draws=30).interval(8, 256)
        assert low < high
        covered += low <= TRUE.loss(8, 256) <= high
    assert covered >= 6  # of 9; 8.1 are expected of intervals of 90 %, and fewer from so few points


def test_a_draw_is_fitted_as_if_it_were_alone() -> None:
    some = points(TRUE, noise=0.005)
    together, alone = fit(some, draws=12).draws[0], fit(some, draws=1).draws[0]
    assert astuple(together) == pytest.approx(astuple(alone), rel=1e-6)


def test_one_training_that_went_wrong_hardly_moves_the_law() -> None:
    right = points(TRUE, noise=0.001)
    loss = right.loss.copy()
    loss[7] *= 1.1
    found = fit(Points(*right.inputs, loss), draws=1).law
    others = np.arange(len(right)) != 7
    assert np.abs(found.loss(*right.inputs) / right.loss - 1)[others].max() < 0.005


def test_a_side_that_changes_nothing_gets_no_term() -> None:
    found = fit(points(Law(3.0, 0.0, 0.0, 30.0, 0.7)), draws=1).law
    assert found.a == pytest.approx(0, abs=1e-4)
    assert found.b == pytest.approx(30, rel=0.01)


def test_nonnegative_least_squares_of_many_problems_at_once_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    columns, values = rng.standard_normal((50, 9, 4)), rng.standard_normal((50, 9))
    weights = rng.uniform(0.5, 2, (50, 9))
    found, loss = nonnegative(columns, values, weights)
    root = np.sqrt(weights)
    for number, (coefficients, reached) in enumerate(zip(found, loss, strict=True)):
        expected, norm = nnls(columns[number] * root[number, :, None], values[number] * root[number])
        assert coefficients == pytest.approx(expected, abs=1e-9)
        assert reached == pytest.approx(norm**2)
    assert 0 < (found == 0).mean() < 1
    shared = nonnegative(columns, values[0], weights[0])[0]
    assert shared[0] == pytest.approx(found[0], abs=1e-12)


def test_the_largest_shapes_are_held_out_with_all_their_budgets() -> None:
    some = points(WITH_TOKENS, depths=(1, 2, 12), budgets=(1e6, 2e6, 3e6))
    kept, out = hold_out(some, 2)
    assert {(d, w) for d, w in zip(some.depth[out], some.width[out], strict=True)} == {(12, 512), (12, 384)}
    assert len(out) == 6
    assert sorted([*kept, *out]) == list(range(len(some)))
    assert not len(hold_out(some, 0)[1])
    with pytest.raises(ConfigError, match=r"--holdout: expected 0 to 11 of 12 shapes, got 12"):
        hold_out(some, 12)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (slice(0, 0), "at least 3 different depths, got 0"),
        (slice(0, 8), "at least 3 different depths, got 2"),
        (slice(0, 20, 4), "at least 3 different widths, got 1"),
        ([0, 5, 10, 15, 16], "at least 6 points to fit 5 numbers, got 5"),
    ],
)
def test_too_few_points_are_refused(index: slice | list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(points(TRUE).take(np.arange(20)[index]))


def test_two_budgets_cannot_tell_a_power_from_a_constant() -> None:
    with pytest.raises(ConfigError, match="1 or at least 3 different budgets, got 2"):
        check(points(WITH_TOKENS, budgets=(1e6, 1e7)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0])
def test_losses_that_are_no_positive_finite_numbers_are_refused(bad: float) -> None:
    right = points(TRUE)
    with pytest.raises(ConfigError, match="expected finite losses"):
        fit(Points(*right.inputs, np.where(np.arange(len(right)) == 3, bad, right.loss)))
