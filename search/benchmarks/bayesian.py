"""Bayesian optimization as a searcher to compare with: any acquisition function, and qLogNEHVI of BoTorch.

Acquisition functions are usually followed by their slope. Members of a space have none, so children are made
and rated in rounds: random members and mutants of the frontier first, then mutants of the best.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.random import Generator

from search.config.searcher import EvolutionSettings
from search.pareto import Floats
from search.searchers.contract import Proposal
from search.searchers.evolution import Evolution
from search.spaces.contract import Space

T = TypeVar("T")
Rate = Callable[[Floats], Floats]
"""Features [k, d] -> how much their evaluation is worth [k], more is better."""
Acquisition = Callable[[Floats, Floats, int], Rate]
"""Features [n, d] and costs [n, m] of what is evaluated, and a seed -> the ratings of what is not."""

BEGINNING = 20
"""Evaluations before the first rating: as many as `guided` makes with a population of 20."""
RANDOM, MUTANTS = 200, 200
"""Random members, and mutants of the frontier, that are rated first."""
ROUNDS, BEST, MUTANTS_OF_BEST = 3, 5, 30
"""Later rounds, the members of the best rating that are parents of each, and the mutants of each of them."""
MC_SAMPLES = 32
"""Samples of the posterior over which qLogNEHVI averages."""
FIT_STEPS = 60
"""Most steps of L-BFGS for a fit; longer fits take more time than all else."""
AT_ONCE = 256
"""Members that are rated at once: a sample of each member and objective is held in memory."""


class Bayesian(Evolution[T]):
    """Proposes the member that an acquisition function rates highest; a Proposer[T].

    The first `BEGINNING` proposals are those of `Evolution` and `Guided` with this seed.

    acquisition: the acquisition function, made anew for each proposal.
    """

    def __init__(self, space: Space[T], acquisition: Acquisition, *, seed: int) -> None:
        super().__init__(space, EvolutionSettings(population=BEGINNING), seed=seed)
        self._acquisition = acquisition

    def _propose(self, rng: Generator) -> Proposal[T]:
        begun = self._next >= BEGINNING and len(self._scores) > 1
        return (self._acquired(rng) if begun else None) or super()._propose(rng)

    def _acquired(self, rng: Generator) -> Proposal[T] | None:
        """The child with the highest rating; None if no round finds a new member."""
        told = [self._proposals[number].candidate for number in self._scores]
        rate = self._acquisition(self._features(told), np.array(list(self._scores.values())), self._next)
        children: dict[str, Proposal[T]] = {}
        ratings: dict[str, float] = {}
        made: list[Proposal[T]] = []
        # None is found once nearly all members are known, after many tries: then there is no need to go on.
        while len(made) < RANDOM and (member := self._random(rng)):
            made.append(member)
        front = [Proposal(self._next, self.proposal(each).candidate, (each,), "") for each in self.frontier]
        parents = [front[place] for place in rng.integers(len(front), size=MUTANTS)]
        for _ in range(ROUNDS + 1):
            made += self._mutants(parents, rng)
            new = {self._space.key(each.candidate): each for each in made}
            new = {key: each for key, each in new.items() if key not in children}
            if new:
                rated = rate(self._features([each.candidate for each in new.values()]))
                children |= new
                ratings |= dict(zip(new, rated.tolist(), strict=True))
            best = sorted(ratings, key=ratings.__getitem__)[-BEST:]
            made, parents = [], [children[key] for key in best for _ in range(MUTANTS_OF_BEST)]
        return children[best[-1]] if best else None

    def _mutants(self, parents: Iterable[Proposal[T]], rng: Generator) -> list[Proposal[T]]:
        """A mutant of each parent, without those that cannot be made or were proposed before."""
        mutants = ((parent, self._space.mutate(parent.candidate, rng)) for parent in parents)
        return [
            Proposal(self._next, mutant[0], parent.parents, "acquired")
            for parent, mutant in mutants
            if mutant is not None and not self._known(mutant[0])
        ]

    def _features(self, members: Iterable[T]) -> Floats:
        return np.array([list(self._space.features(member).values()) for member in members], float)


def log_nehvi(rows: Floats, costs: Floats, seed: int) -> Rate:
    """Returns BoTorch's qLogNEHVI: the logarithm of the expected gain in hypervolume, under noise.

    Daulton et al. 2021 (arXiv 2105.08195) give the gain, Ament et al. 2023 (arXiv 2310.20708) its logarithm.
    A Gaussian process learns each standardized cost, with BoTorch's default kernel, priors and noise. The
    reference point is the one that BoTorch infers from the frontier.

    rows: features [n, d]; they are scaled to 0 … 1, and columns without variation are left out.
    costs: [n, m], less is better.
    seed: of the samples.
    """
    import torch
    from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.sampling.normal import SobolQMCNormalSampler
    from botorch.utils.multi_objective.hypervolume import infer_reference_point
    from botorch.utils.multi_objective.pareto import is_non_dominated
    from gpytorch.mlls import SumMarginalLogLikelihood

    low, span = rows.min(0), np.ptp(rows, 0)
    varied = span > 0

    def scaled(features: Floats) -> torch.Tensor:
        return torch.from_numpy((features - low)[:, varied] / span[varied])

    deviation = costs.std(0, ddof=1)
    gains = torch.from_numpy((costs.mean(0) - costs) / np.where(deviation > 0, deviation, 1))
    x = scaled(rows)
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        model = ModelListGP(*(SingleTaskGP(x, gains[:, [each]]) for each in range(gains.shape[1])))
        likelihood = SumMarginalLogLikelihood(model.likelihood, model)
        fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": FIT_STEPS}})
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model,
            infer_reference_point(gains[is_non_dominated(gains)]),
            x,
            sampler=SobolQMCNormalSampler(torch.Size([MC_SAMPLES]), seed=seed),
            prune_baseline=True,
        )

    def rate(features: Floats) -> Floats:
        with torch.no_grad(), _quiet():
            parts = [acquisition(part[:, None]) for part in scaled(features).split(AT_ONCE)]
        return np.asarray(torch.cat(parts).numpy())

    return rate


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out a warning of every few proposals: 1e-8 was added to the diagonal of a covariance."""
    from linear_operator.utils.warnings import NumericalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericalWarning)
        yield
