"""Ends trainings early: at a rung, a candidate that is worse than others as fast is stopped."""

from search.evaluation.audits import RUNGS, Audit, audits
from search.evaluation.fidelity import costs_before_training, is_rung_loss, rung_loss, rung_metric
from search.evaluation.outcome import Job


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Ends a training at a rung; its text gives the reason."""

    def __init__(self, gate: str, reason: str) -> None:
        super().__init__(reason)
        self.gate = gate


class Halving:
    """Called at a rung: notes the loss in `metrics`, and raises Stopped for a loss that is too large.

    A candidate that is let through for an audit goes on, and its reason is noted in `audited`.
    """

    def __init__(self, job: Job, metrics: dict[str, float], audited: list[Audit]) -> None:
        costs = costs_before_training(job.objectives, metrics) if job.rungs else None
        eta = job.fidelity.eta
        self._limits = (
            {rung.tokens: rung.limit(costs, eta=eta) for rung in job.rungs} if costs is not None else {}
        )
        self._lets_all_through = audits(job.gates.audit, RUNGS, job.architecture, seed=job.seed)
        self._job, self._metrics, self._audited = job, metrics, audited

    def __call__(self, tokens: int, loss: float) -> None:
        deciding, limit = rung_loss(self._job.objectives), self._limits.get(tokens)
        gate = rung_metric(tokens, deciding)
        self._metrics[gate] = loss
        if limit is None or loss <= limit:
            return
        known = ", ".join(
            objective.metric for objective in self._job.objectives if not is_rung_loss(objective.metric)
        )
        others = f"others no worse in {known}" if known else "others"
        share = f"1 in {self._job.fidelity.eta} {others}"
        amount = f"{tokens:,} tokens" if deciding == "loss" else f"{tokens:,} examples"
        words = deciding.replace("_", " ")
        reason = f"{words} {loss:.4f} after {amount}: expected at most {limit:.4f}, as {share} had"
        if not self._lets_all_through:
            raise Stopped(gate, reason)
        if gate not in {
            audit.gate for audit in self._audited
        }:  # it is there already where a training began anew for lack of memory
            self._audited.append(Audit(gate=gate, reason=reason))
