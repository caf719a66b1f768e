"""Metrics of a candidate that need no measurement: what constraints on them cost to check is paid for every child of a search."""

from collections.abc import Callable

from operators import Architecture
from operators.cost import cost, parameters
from profiler.device.device import inference_dtype
from profiler.profile import key
from search.config.run import RunConfig
from search.gates.screen import Check
from search.objectives import first_broken


def arithmetic(config: RunConfig) -> Callable[[Architecture], dict[str, float]]:
    """What computes, of the metrics that the run's constraints name, those that need no measurement, and no others."""
    wanted = {constraint.metric for constraint in config.parsed_constraints()}
    dtype, contexts, batches = (
        inference_dtype(config.device),
        config.profile.contexts,
        config.profile.batch_sizes,
    )
    fields = [("param_bytes", "param_bytes", batches[0], contexts[0])]
    for context in contexts:
        further = None if context == contexts[0] else context
        for batch in batches:
            names = ("state_bytes", "kv_bytes", "recurrent_bytes")
            fields += [(key(name, batch=batch, context=further), name, batch, context) for name in names]
    fields = [field for field in fields if field[0] in wanted]
    points = {(batch, context) for _, _, batch, context in fields}

    def compute(architecture: Architecture) -> dict[str, float]:
        metrics: dict[str, float] = {"params": parameters(architecture)} if "params" in wanted else {}
        costs = {
            (batch, context): cost(architecture, batch=batch, context=context, dtype=dtype)
            for batch, context in points
        }
        return metrics | {
            metric: getattr(costs[batch, context], name) for metric, name, batch, context in fields
        }

    return compute


def arithmetic_check(config: RunConfig) -> Check | None:
    """The gate of arithmetic; None for a run without constraints."""
    constraints, compute = config.parsed_constraints(), arithmetic(config)
    return (lambda found: first_broken(constraints, compute(found))) if constraints else None
