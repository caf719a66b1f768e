"""The `searcher` and `evolution` sections of a run."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from operators.base.value import Value

Name = Literal["guided", "evolution", "aging", "random", "nsga2", "tpe", "gp"]
NAMES: tuple[str, ...] = get_args(Name)


class SearcherSettings(Value):
    """What proposes candidates: the `searcher` section of a run.

    name: one of these. Settings that they share, such as a population, are in the `evolution` section.
        guided: evolution whose children are screened by surrogates.
        evolution: evolution with Pareto ranks.
        aging: evolution for the first objective alone, as Nemotron-Flash published it.
        random: new random members.
        nsga2, tpe, gp: Optuna's. `gp` needs scipy, and takes seconds for a proposal.
    """

    name: Name = "guided"


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
