"""The one schema of a run. Every key has a default; unknown keys are refused."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from operators import plain_yaml
from operators.errors import ConfigError, one_line
from operators.value import Value
from profiler.profile import ProfileSettings
from proxy_train.data import DataSettings
from proxy_train.tasks import TaskSettings
from proxy_train.train import ProxySettings
from search.evolution import EvolutionSettings
from search.fidelity import FidelitySettings
from search.objectives import Constraint, Objective, parse_constraint, parse_objective
from search.searchers import SearcherSettings
from search.space import SpaceSettings


class RunConfig(Value):
    """What a search is asked to do.

    candidates: how many are evaluated, failures included. workers: how many at the same time.
    device: where they are trained and measured. deadline_s: seconds after which one evaluation is given up.
    keep_weights: whose trained weights stay in the run's folder.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    workers: Annotated[int, Field(ge=1, le=4096)] = 2
    device: str = "cpu"
    deadline_s: Annotated[float, Field(gt=0)] = 900.0
    keep_weights: Literal["all", "frontier", "none"] = "all"
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("loss", "decode_ms@b1")
    constraints: tuple[str, ...] = ()
    data: DataSettings = DataSettings()
    proxy: ProxySettings = ProxySettings()
    fidelity: FidelitySettings = FidelitySettings()
    tasks: TaskSettings = TaskSettings()
    profile: ProfileSettings = ProfileSettings()
    space: SpaceSettings = SpaceSettings()
    searcher: SearcherSettings = SearcherSettings()
    evolution: EvolutionSettings = EvolutionSettings()

    @model_validator(mode="after")
    def _energy_has_a_counter(self) -> Self:
        if self.profile.energy_seconds and self.device == "cpu":
            raise ValueError("profile.energy_seconds: energy is read from a GPU's counter, expected 0 on device cpu")
        return self

    @model_validator(mode="after")
    def _metrics_exist(self) -> Self:
        try:
            wanted = self.parsed_objectives()
            self.parsed_constraints()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if len({objective.metric for objective in wanted}) < len(wanted):
            raise ValueError(f"objectives: expected each metric once, got {', '.join(self.objectives)}")
        return self

    @model_validator(mode="after")
    def _head_fits_training(self) -> Self:
        if self.proxy.weight_normalization and not self.space.normalized_head:
            raise ValueError("proxy.weight_normalization: expected space.normalized_head: true with it")
        return self

    def parsed_objectives(self) -> tuple[Objective, ...]:
        return tuple(parse_objective(name, self.profile, self.tasks) for name in self.objectives)

    def parsed_constraints(self) -> tuple[Constraint, ...]:
        return tuple(parse_constraint(text, self.profile, self.tasks) for text in self.constraints)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)


def parse(data: Any, *, where: str) -> RunConfig:
    """A validated configuration from plain data. Raises ConfigError, one line that begins with `where`."""
    try:
        return RunConfig.model_validate({} if data is None else data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None


def load(path: Path) -> RunConfig:
    """Reads a YAML file. Raises ConfigError."""
    return parse(plain(path), where=str(path))


def plain(path: Path) -> Any:
    """What a YAML file says, not validated. Raises ConfigError."""
    try:
        return plain_yaml.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
