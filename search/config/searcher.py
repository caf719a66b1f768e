"""The `searcher` and `evolution` sections of a run."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from operators.base.value import Value

Name = Literal["guided", "evolution", "aging", "random", "nsga2", "tpe", "gp"]


NAMES: tuple[str, ...] = get_args(Name)


class SearcherSettings(Value):
    """The `searcher` section of a run.

    guided: evolution screened by surrogates. evolution: with Pareto ranks. aging: as published, for the first objective. nsga2, tpe, gp:
    Optuna's; gp needs scipy, and seconds a proposal. What these share, such as a population, is in the `evolution` section.
    """

    name: Name = "guided"


class EvolutionSettings(Value):
    """The `evolution` section of a run.

    population: how many proposals come before the first child, and how many of the latest successful evaluations may breed.
    tournament: how many of them compete to be a parent. crossover: probability that a child has two parents.
    second_mutation: probability that a child is mutated twice.
    """

    population: Annotated[int, Field(ge=1)] = 16
    tournament: Annotated[int, Field(ge=1)] = 4
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.3
    second_mutation: Annotated[float, Field(ge=0, le=1)] = 0.2
