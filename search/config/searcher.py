"""The `searcher` and `evolution` sections of a run."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Annotated

from pydantic import AfterValidator, Field

from operators.base import plugins
from operators.base.value import Value

NAMES = ("guided", "evolution", "aging", "random", "nsga2", "tpe", "gp")


def of_others() -> Mapping[str, EntryPoint]:
    """The searchers of other packages, by name. Raises ConfigError."""
    return plugins.found("frontrunner.searchers", NAMES)


def _known(name: str) -> str:
    known = (*NAMES, *of_others())
    if name not in known:
        raise ValueError(f"expected one of {', '.join(known)}, got {name!r}")
    return name


class SearcherSettings(Value):
    """What proposes candidates: the `searcher` section of a run.

    name: one of these. Settings that they share, such as a population, are in the `evolution` section.
        guided: evolution whose children are screened by surrogates.
        evolution: evolution with Pareto ranks.
        aging: evolution for the first objective alone, as Nemotron-Flash published it.
        random: new random members.
        nsga2, tpe, gp: Optuna's. `gp` takes seconds for a proposal.
        Or a searcher of another package, by the name of its entry point.
    """

    name: Annotated[str, AfterValidator(_known)] = "guided"


class EvolutionSettings(Value):
    """Settings that searchers share: the `evolution` section of a run.

    population: number of proposals before the first child, and number of the latest successful evaluations
        that may breed.
    tournament: number of these that compete to be a parent.
    crossover: probability that a child has two parents.
    second_mutation: probability that a child is mutated twice.
    """

    population: Annotated[int, Field(ge=1)] = 16
    tournament: Annotated[int, Field(ge=1)] = 4
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.3
    second_mutation: Annotated[float, Field(ge=0, le=1)] = 0.2
