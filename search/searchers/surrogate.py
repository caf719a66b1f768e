"""What an objective of an unseen candidate will be: a Gaussian process on the features of the space.

Its covariance is a smooth part (Matérn 5/2), an additive part `a` (a ridge regression on each feature and its square) and the square of
that, for pairs that act together; features are weighted by how much they matter. Weights, shares and noise climb towards the greatest
probability of the data from values that few data leave them at. Leave-one-out errors, which a Gaussian process has in closed form,
say whether it predicts at all (`skill`) and scale its deviations, more where they are near.
"""

from dataclasses import dataclass

import numpy as np
import torch

from search.pareto import Floats

START = (-4.0, 0.0, -1.0, -4.0, -4.0)
"""Logarithms of the variances of noise, smooth part, features, their squares, and pairs, of standardized values."""
PULL, REACH = (
    0.1,
    8.0,
)  # how strongly the starting values pull back, and how far from them the logarithms may go
RATE, MEMORY, SCALE_MEMORY = 0.1, 0.9, 0.99  # of Adam, which climbs the probability
NUGGET = 1e-6  # added to the diagonal, so that equal rows can be inverted


@dataclass(frozen=True)
class Kernel:
    """logs: logarithms of the weight of each feature [d], then of the five variances of `START`: [d + 5]."""

    logs: Floats

    def __call__(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Covariances without noise of standardized rows [n, d] and [k, d], and how near they are, from 0, far apart, to 1, equal in all
        that matters: [n, k] each."""
        weights, (_, smooth, linear, square, pairs) = _split(self.logs)
        inner, squares = _products(a, b, weights)
        near = _matern(_distance(a, b, weights, inner))
        # Smooth + additive + pairs * additive², in place: fresh memory for each term takes longer than the arithmetic.
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
    """Every feature matters as much, little is noise and little a matter of pairs."""
    return Kernel(np.concatenate([np.full(features, -np.log(max(1, features))), START]))


def fitted(kernel: Kernel, x: Floats, y: Floats, *, steps: int, times: Floats | None = None) -> Kernel:
    """The kernel after some steps towards the most probable one for standardized features [n, d] and values [n].

    times: of how many evaluations each value is the mean [n], which has as much less noise; 1 where it is left out.
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
    """A kernel conditioned on data. errors: leave-one-out errors in units of the deviations that the kernel gave them: [n].

    skill: the share of the variance that leave-one-out predictions explain; 0 or less is no better than the mean.
    """

    kernel: Kernel
    x: Floats
    inverse: Floats
    dual: Floats
    errors: Floats
    skill: float

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Means and deviations of what standardized rows [k, d] will be measured to be: [k], [k]."""
        across, near = self.kernel(x, self.x)
        unexplained = np.maximum(
            self.kernel.variance(x) - np.einsum("kn,kn->k", across @ self.inverse, across), 0
        )
        squares = self.errors**2
        spread = (near @ squares + squares.mean()) / (near.sum(1) + 1)
        return across @ self.dual, np.sqrt(spread * (unexplained + self.kernel.noise))


def conditioned(kernel: Kernel, x: Floats, y: Floats, times: Floats | None = None) -> Surrogate:
    """The surrogate of standardized features [n, d] and values [n]; times: see `fitted`."""
    covariance, _ = kernel(x, x)
    covariance[np.diag_indices(len(x))] += kernel.noise / (1.0 if times is None else times)
    inverse = _inverse(covariance)
    dual: Floats = inverse @ y
    diagonal: Floats = np.diag(inverse)
    skill = 1 - float(np.mean((dual / diagonal) ** 2)) / max(float(np.var(y)), 1e-12)
    return Surrogate(kernel, x, inverse, dual, errors=dual / np.sqrt(diagonal), skill=skill)


def log_probability_slope(logs: Floats, x: Floats, y: Floats, times: Floats | None = None) -> Floats:
    """The derivative of the logarithm of the data's probability by each of `logs`."""
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
    """Weights of features [d] and the five variances."""
    return np.exp(logs[: -len(START)]), np.exp(logs[-len(START) :])


def _products(a: Floats, b: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted inner products of rows, and of their centred squares: [n, k] each."""
    return (a * weights) @ b.T, ((a * a - 1) * (weights / 2)) @ (b * b - 1).T


def _distance(a: Floats, b: Floats, weights: Floats, inner: Floats) -> Floats:
    """Squared weighted distances: [n, k]."""
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
    """Its derivative by squared distances."""
    far = np.sqrt(5 * squared)
    return np.asarray(-5 / 6 * (1 + far) * np.exp(-far))


def _inverse(covariance: Floats) -> Floats:
    """Of a positive definite matrix, in half the time that it takes of any."""
    return np.asarray(torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(covariance))).numpy())
