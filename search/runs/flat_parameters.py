"""A candidate's features as the parameters of an Optuna trial, so that Optuna's tools can read a ledger."""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from search.config.space import SpaceSettings


def flat_parameters(
    features: Mapping[str, float], space: SpaceSettings
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Parameters with the ranges that the space gives them.

    Optuna's importances mean something only over the true ranges.
    """
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    whole = {
        "width": (min(space.widths), max(space.widths)),
        "depth": (space.min_depth, space.max_depth),
        "meta_tokens": (min(space.meta_tokens), max(space.meta_tokens)),
    }
    for name, value in features.items():
        if name in whole or name.endswith(".count"):
            params[name] = round(value)
            low, high = whole.get(name, (0, space.max_depth))
            distributions[name] = IntDistribution(low, max(high, params[name]))
        else:
            params[name] = float(value)
            usual = 12.0 if name.startswith("log10") else 4.0 if name.endswith("ratio") else 1.0
            distributions[name] = FloatDistribution(0.0, max(usual, params[name]))
    return params, distributions
