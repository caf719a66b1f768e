"""A candidate's features as the parameters of an Optuna trial, so that Optuna's tools can read a ledger."""

from collections.abc import Mapping
from typing import NamedTuple

from search.config.space import SpaceSettings


class Parameter(NamedTuple):
    """A value between two ends; all three are whole numbers, or none is."""

    value: float
    low: float
    high: float


def flat_parameters(features: Mapping[str, float], space: SpaceSettings) -> dict[str, Parameter]:
    """Parameters with the ranges that the space gives them.

    Optuna's importances mean something only over the true ranges.
    """
    parameters: dict[str, Parameter] = {}
    whole = {
        "width": (min(space.widths), max(space.widths)),
        "depth": (space.min_depth, space.max_depth),
        "meta_tokens": (min(space.meta_tokens), max(space.meta_tokens)),
    }
    for name, value in features.items():
        if name in whole or name.endswith(".count"):
            low, high = whole.get(name, (0, space.max_depth))
            parameters[name] = Parameter(round(value), low, max(high, round(value)))
        else:
            usual = 12.0 if name.startswith("log10") else 4.0 if name.endswith("ratio") else 1.0
            parameters[name] = Parameter(float(value), 0.0, max(usual, float(value)))
    return parameters
