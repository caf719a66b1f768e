"""Proxies of candidates, and when the training of a candidate ends early.

A candidate's proxy is the target itself, or something cheaper that stands for it.

Trainings end early by halving (asynchronous successive halving, Li et al. 2020, arXiv 1810.05934). While a
candidate trains, its validation loss is taken at rungs. A rung is a number of tokens below the budget. At
each rung the candidate has to be among the best 1/eta of the candidates that came to the same rung before, or
its training ends there. It does not wait for other candidates. Losses of different rungs are never compared.

A higher loss alone is no reason to stop a candidate that is faster. So each candidate is compared only with
candidates that are no worse in every other objective. These objectives are all measured before training. For
a stopped candidate there is thus another one that is no worse elsewhere and has a lower loss at the rung. If
the final losses have the order of the losses at the rung, that other one dominates it. Where the other one
was stopped too, the candidate that stopped the other one does. Halving costs a member of the frontier only
where the order of losses still changes. `search.gates.screen` audits how often it does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from operators import Architecture
from profiler.metrics import MetricName
from search.objectives import PROXY_METRICS, Objective

# Widths of proxies are whole multiples of this: the matrix units of GPUs are fast at such sizes.
WIDTH_STEP = 16
ANSWER_LOSS = "answer_loss"


def proxy_of(target: Architecture, width_scale: float) -> Architecture:
    """Returns the architecture that is trained in place of the target.

    It has the same layers with the same genes, at the scaled width. The width is the multiple of WIDTH_STEP
    nearest to the scaled one, at least WIDTH_STEP and never above the target's. At scale 1 it is the
    target's. Heads keep their size and become fewer, at least one group. So an operator may be a larger part
    of a narrow model.
    """
    if width_scale == 1:
        return target
    width = WIDTH_STEP * max(1, round(width_scale * target.width / WIDTH_STEP))
    return target if width >= target.width else target.resized(width)


def rung_metric(tokens: int, loss: str = "loss") -> str:
    """Returns the name of the loss at a rung; no objective or constraint can have such a name.

    tokens: of the rung; of candidates that see, its examples.
    loss: the loss that decides there, see `rung_loss`.
    """
    return str(MetricName(loss, tokens=tokens))


def rung_loss(objectives: Sequence[Objective]) -> str:
    """Returns the loss that decides at rungs: that of answers where candidates see."""
    return ANSWER_LOSS if any(each.metric == ANSWER_LOSS for each in objectives) else "loss"


@dataclass(frozen=True)
class Rung:
    """The candidates that came to a rung so far.

    tokens: the number of tokens at which the rung is.
    reached: for each candidate, its costs in the objectives known before training, and its loss here.
    """

    tokens: int
    reached: tuple[tuple[tuple[float, ...], float], ...]

    def limit(self, costs: tuple[float, ...], *, eta: int) -> float | None:
        """Returns the largest loss with which a candidate of such costs continues.

        None where fewer than eta candidates are there to compare it with.
        """
        losses = sorted(
            loss for others, loss in self.reached if all(a <= b for a, b in zip(others, costs, strict=True))
        )
        return losses[len(losses) // eta - 1] if len(losses) >= eta else None


def is_rung_loss(metric: str) -> bool:
    """Whether an objective is decided by the loss at rungs."""
    return metric in PROXY_METRICS or metric == ANSWER_LOSS


def rungs_of(
    rungs: Sequence[int], objectives: Sequence[Objective], scores: Iterable[Mapping[str, float]]
) -> tuple[Rung, ...]:
    """Returns every rung with the candidates that came to it.

    rungs: numbers of tokens, ascending.
    scores: metrics of the candidates that were trained to the end or stopped.
    """
    costed = [
        (costs, metrics)
        for metrics in scores
        if (costs := costs_before_training(objectives, metrics)) is not None
    ]
    names = {tokens: rung_metric(tokens, rung_loss(objectives)) for tokens in rungs}
    return tuple(
        Rung(tokens, tuple((costs, metrics[name]) for costs, metrics in costed if name in metrics))
        for tokens, name in names.items()
    )


def costs_before_training(
    objectives: Sequence[Objective], metrics: Mapping[str, float]
) -> tuple[float, ...] | None:
    """Returns the costs in all objectives but the loss; None where one could not be measured."""
    known = [objective for objective in objectives if not is_rung_loss(objective.metric)]
    return (
        tuple(objective.cost(metrics) for objective in known)
        if all(objective.metric in metrics for objective in known)
        else None
    )
