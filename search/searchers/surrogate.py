"""A surrogate: a Gaussian process that predicts one objective from the features of a candidate.

Its covariance has three parts. One is smooth (Matérn 5/2). One is additive: a ridge regression on each
feature and its square. One is the square of the additive part, for pairs of features that act together. Each
feature has a weight.

A fit raises the probability of the data by gradient steps on weights, variances and noise. A prior pulls
these towards their starting values, so that few data change them little. Leave-one-out errors have a closed
form. They give the skill of the predictions, and they scale the predicted deviations, nearby errors more.
"""

from dataclasses import dataclass

import numpy as np
import torch

from search.pareto import Floats

START = (-4.0, 0.0, -1.0, -4.0, -4.0)
"""Logarithms of variances of standardized values: noise, smooth part, features, their squares, and pairs."""
PULL = 0.1
"""Strength of the prior that pulls the logarithms towards their starting values."""
REACH = 8.0
"""Largest distance of the logarithms from their starting values."""
RATE, MEMORY, SCALE_MEMORY = 0.1, 0.9, 0.99
"""Learning rate and decay rates of Adam, which raises the probability of the data."""
NUGGET = 1e-6
"""Added to the diagonal of the covariance, so that it can be inverted where rows are equal."""


@dataclass(frozen=True)
class Kernel:
    """The covariance function.

    logs: logarithms of the weights of the features [d], then of the five variances of START: [d + 5].
    """

    logs: Floats

    def __call__(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Covariances without noise, and nearness, of all pairs of rows: [n, k] each.

        Nearness is from 0, far apart, to 1, equal in every feature that has weight.

        a, b: standardized rows [n, d] and [k, d].
        """
        weights, (_, smooth, linear, square, pairs) = _split(self.logs)
        inner, squares = _products(a, b, weights)
        near = _matern(_distance(a, b, weights, inner))
        # This is smooth + additive + pairs * additive², computed in place: new memory for each term would
        # take longer than the arithmetic.
        inner *= linear
        squares *= square
        additive = np.add(inner, squares, out=inner)
        covariance = np.multiply(additive, pairs, out=squares)
        covariance += 1
        covariance *= additive
        covariance += np.multiply(near, smooth, out=additive)
        return covariance, near

    def variance(self, a: Floats) -> Floats:
        """The diagonal of `self(a, a)`."""
        weights, (_, smooth, linear, square, pairs) = _split(self.logs)
        additive = linear * (a * a) @ weights + square * ((a * a - 1) ** 2) @ weights / 2
        return np.asarray(smooth + additive + pairs * additive**2)

    @property
    def noise(self) -> float:
        return float(_split(self.logs)[1][0]) + NUGGET


def first_kernel(features: int) -> Kernel:
    """The starting kernel: all features have equal weight, and noise and pairs have little variance."""
    return Kernel(np.concatenate([np.full(features, -np.log(max(1, features))), START]))


def fitted(kernel: Kernel, x: Floats, y: Floats, *, steps: int, times: Floats | None = None) -> Kernel:
    """The kernel after some steps of Adam towards the most probable one.

    kernel: where the steps begin.
    x, y: standardized features [n, d] and values [n].
    steps: number of steps.
    times: number of evaluations whose mean each value is [n]; its noise is divided by it. None means 1.
    """
    first, logs = first_kernel(x.shape[1]).logs, kernel.logs
    moment, scale = np.zeros_like(logs), np.zeros_like(logs)
    for step in range(1, steps + 1):
        slope = log_probability_slope(logs, x, y, times) - PULL * (logs - first)
        moment = MEMORY * moment + (1 - MEMORY) * slope
        scale = SCALE_MEMORY * scale + (1 - SCALE_MEMORY) * slope * slope
        logs = logs + RATE * moment / (1 - MEMORY**step) / (np.sqrt(scale / (1 - SCALE_MEMORY**step)) + 1e-8)
        logs = np.clip(logs, first - REACH, first + REACH)
    return Kernel(logs)


@dataclass(frozen=True)
class Surrogate:
    """A kernel conditioned on data.

    kernel: the covariance function.
    x: standardized features of the data [n, d].
    root: from `inverse_root` [n, n].
    dual: inverse covariance times the values [n].
    errors: leave-one-out errors in units of the deviations that the kernel predicted for them [n].
    skill: share of the variance that leave-one-out predictions explain. At 0 or less they are no better than
        the mean.
    """

    kernel: Kernel
    x: Floats
    root: Floats
    dual: Floats
    errors: Floats
    skill: float

    def means(self, x: Floats) -> Floats:
        """The means [k] of `predict` alone, which take a third of its time."""
        return np.asarray(self.kernel(x, self.x)[0] @ self.dual)

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Means and deviations of measured values [k], noise included, at standardized rows [k, d]."""
        across, near = self.kernel(x, self.x)
        white = across @ self.root.T
        unexplained = np.maximum(self.kernel.variance(x) - np.einsum("kn,kn->k", white, white), 0)
        squares = self.errors**2
        spread = (near @ squares + squares.mean()) / (near.sum(1) + 1)
        return across @ self.dual, np.sqrt(spread * (unexplained + self.kernel.noise))


def conditioned(
    kernel: Kernel, x: Floats, y: Floats, times: Floats | None = None, *, root: Floats | None = None
) -> Surrogate:
    """The surrogate of a kernel and data.

    x, y, times: as for `fitted`.
    root: `inverse_root` of the same kernel and the first of these rows, which saves time; None for none.
    """
    times = np.ones(len(x)) if times is None else times
    root = inverse_root(kernel, x, times) if root is None else extended_root(root, kernel, x, times)
    dual: Floats = root.T @ (root @ y)
    diagonal = np.einsum("nk,nk->k", root, root)
    skill = 1 - float(np.mean((dual / diagonal) ** 2)) / max(float(np.var(y)), 1e-12)
    return Surrogate(kernel, x, root, dual, errors=dual / np.sqrt(diagonal), skill=skill)


def inverse_root(kernel: Kernel, x: Floats, times: Floats) -> Floats:
    """The inverse of the Cholesky factor of the data's covariance with noise: lower triangular [n, n].

    Its transpose times itself is the inverse covariance.

    x, times: as for `fitted`.
    """
    covariance, _ = kernel(x, x)
    covariance[np.diag_indices(len(x))] += kernel.noise / times
    factor = torch.linalg.cholesky(torch.from_numpy(covariance))
    unit = torch.eye(len(x), dtype=factor.dtype)
    return np.asarray(torch.linalg.solve_triangular(factor, unit, upper=False).numpy())


def extended_root(root: Floats, kernel: Kernel, x: Floats, times: Floats) -> Floats:
    """`inverse_root` of all rows from that of the first ones, in time that grows with n² for each new row.

    Rows are added one by one, so that the result does not depend on how many come at once. No row explains
    the noise of another: where less variance than its noise is left, rounding has spoiled the root, which is
    then made anew.

    root: `inverse_root` of the first rows [k, k].
    x, times: as for `fitted`.
    """
    for count in range(len(root), len(x)):
        noise = kernel.noise / times[count]
        white = root @ kernel(x[:count], x[count : count + 1])[0][:, 0]
        unexplained = float(kernel.variance(x[count : count + 1])[0]) + noise - float(white @ white)
        if unexplained < noise:
            root = inverse_root(kernel, x[: count + 1], times[: count + 1])
            continue
        longer = np.zeros((count + 1, count + 1))
        longer[:count, :count] = root
        longer[count, :count] = white @ root / -np.sqrt(unexplained)
        longer[count, count] = 1 / np.sqrt(unexplained)
        root = longer
    return root


def log_probability_slope(logs: Floats, x: Floats, y: Floats, times: Floats | None = None) -> Floats:
    """The derivatives of the data's log probability by each of `logs` [d + 5].

    x, y, times: as for `fitted`.
    """
    weights, (noise, smooth, linear, square, pairs) = _split(logs)
    inner, squares = _products(x, x, weights)
    squared = _distance(x, x, weights, inner)
    matern, change = _matern(squared), _matern_slope(squared)
    additive = linear * inner + square * squares
    covariance = smooth * matern + additive + pairs * additive**2
    shares = np.ones(len(x)) if times is None else 1 / times
    covariance[np.diag_indices(len(x))] += (noise + NUGGET) * shares
    inverse = _inverse(covariance)
    dual = inverse @ y
    pull = 0.5 * (np.outer(dual, dual) - inverse)
    apart, along, z = smooth * pull * change, pull * (1 + 2 * pairs * additive), x * x - 1
    by_weight = 2 * (apart.sum(1) @ (x * x) - np.einsum("nd,nd->d", x, apart @ x))
    by_weight += linear * np.einsum("nd,nd->d", x, along @ x) + square / 2 * np.einsum(
        "nd,nd->d", z, along @ z
    )
    by_variance = [
        noise * (np.diag(pull) * shares).sum(),
        smooth * (pull * matern).sum(),
        linear * (along * inner).sum(),
        square * (along * squares).sum(),
        pairs * (pull * additive**2).sum(),
    ]
    return np.concatenate([weights * by_weight, by_variance])


def _split(logs: Floats) -> tuple[Floats, Floats]:
    """Weights of the features [d] and the five variances of START."""
    return np.exp(logs[: -len(START)]), np.exp(logs[-len(START) :])


def _products(a: Floats, b: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted inner products of all pairs of rows, and of their centred squares: [n, k] each."""
    return (a * weights) @ b.T, ((a * a - 1) * (weights / 2)) @ (b * b - 1).T


def _distance(a: Floats, b: Floats, weights: Floats, inner: Floats) -> Floats:
    """Squared weighted distances of all pairs of rows [n, k]. inner: their weighted inner products."""
    squared = ((a * a) @ weights)[:, None] + (b * b) @ weights
    squared -= 2 * inner
    return np.asarray(np.maximum(squared, 0, out=squared))


def _matern(squared: Floats) -> Floats:
    """The Matérn 5/2 correlation at squared distances."""
    far = 5 * squared
    np.sqrt(far, out=far)
    decay = np.negative(far)
    np.exp(decay, out=decay)
    decay *= 1 + far + far * far / 3
    return decay


def _matern_slope(squared: Floats) -> Floats:
    """The derivative of the Matérn 5/2 correlation by squared distances."""
    far = np.sqrt(5 * squared)
    return np.asarray(-5 / 6 * (1 + far) * np.exp(-far))


def _inverse(covariance: Floats) -> Floats:
    """The inverse of a positive definite matrix, in half the time of a general inverse."""
    return np.asarray(torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(covariance))).numpy())
