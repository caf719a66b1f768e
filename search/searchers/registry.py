"""The searchers by name."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from operators.base import plugins
from operators.base.errors import ConfigError
from search.config.searcher import EvolutionSettings, of_others
from search.searchers.contract import Proposer
from search.searchers.evolution import Evolution
from search.searchers.guided import Guided, Known
from search.searchers.random_search import RandomSearch
from search.searchers.regularized_evolution import Aging
from search.spaces.contract import Space
from search.spaces.encoding import ArchitectureEncoding, EncodedSpace
from search.spaces.free import ArchitectureSpace

T = TypeVar("T")


def searcher(
    name: str, space: Space[T], settings: EvolutionSettings, *, seed: int, known: Known[T] | None = None
) -> Proposer[T]:
    """Returns the searcher of that name.

    name: one of Frontrunner's own, or an entry point of the group `frontrunner.searchers`. The entry point
        names a callable that takes the space, the settings and the seed as they are passed here.
    space: the space of the proposals.
    settings: of the evolution.
    seed: of the proposals.
    known: see `Guided`; the other searchers have no use for it.

    Raises ConfigError.
    """
    if name in of_others():
        made: Proposer[T] = plugins.load_callable(of_others()[name])(space, settings, seed=seed)
        return made
    plain: dict[str, Callable[[], Proposer[T]]] = {
        "guided": lambda: Guided(space, settings, seed=seed, known=known),
        "evolution": lambda: Evolution(space, settings, seed=seed),
        "aging": lambda: Aging(space, settings, seed=seed),
        "random": lambda: RandomSearch(space, seed=seed),
    }
    return plain[name]() if name in plain else _optuna(name, space, settings, seed)


def _optuna(name: str, space: Space[T], settings: EvolutionSettings, seed: int) -> Proposer[T]:
    from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler

    from search.searchers.optuna_samplers import OptunaProposer

    samplers: dict[str, Callable[[int], BaseSampler]] = {
        "nsga2": lambda number: NSGAIISampler(population_size=max(2, settings.population), seed=number),
        "tpe": lambda number: TPESampler(seed=number),
        "gp": lambda number: GPSampler(seed=number),
    }
    if name not in samplers:
        raise ConfigError(f"searcher.name: search/searchers/registry.py makes no {name!r}")
    return OptunaProposer(_encoded(name, space), samplers[name], name=name, seed=seed)


def _encoded(name: str, space: Any) -> EncodedSpace[Any]:
    if isinstance(space, ArchitectureSpace):
        return ArchitectureEncoding(space)
    if not hasattr(space, "dimensions"):
        raise ConfigError(
            f"searcher.name: {name} needs a space that can be written in whole numbers, "
            f"which {type(space).__name__} cannot"
        )
    return cast("EncodedSpace[Any]", space)
