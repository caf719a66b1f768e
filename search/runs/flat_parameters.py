"""A candidate's features as the parameters of an Optuna trial, so that Optuna's tools can read a ledger."""

from collections.abc import Mapping
from typing import NamedTuple


class Parameter(NamedTuple):
    """A value between two ends; all three are whole numbers, or none is."""

    value: float
    low: float
    high: float


def flat_parameters(
    features: Mapping[str, float], ranges: Mapping[str, tuple[int, int]]
) -> dict[str, Parameter]:
    """Parameters with the ranges that the space gives them.

    Optuna's importances mean something only over the true ranges.

    ranges: of the features that are whole numbers; that of depth holds for counts of layers too.
    """
    parameters: dict[str, Parameter] = {}
    for name, value in features.items():
        if name in ranges or name.endswith(".count"):
            low, high = ranges.get(name, (0, ranges["depth"][1]))
            parameters[name] = Parameter(round(value), low, max(high, round(value)))
        else:
            usual = 12.0 if name.startswith("log10") else 4.0 if name.endswith("ratio") else 1.0
            parameters[name] = Parameter(float(value), 0.0, max(usual, float(value)))
    return parameters
