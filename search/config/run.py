"""The one schema of a run. Every key has a default, and an unknown key is an error."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from operators.base import plain_yaml, shipped
from operators.base.errors import ConfigError, one_line
from operators.base.value import Value
from profiler.device.names import LLAMA_CPP, engine_of
from profiler.profile import ProfileSettings
from proxy_train.settings import ProxySettings
from proxy_train.task_settings import TaskSettings
from proxy_train.text.data_settings import DataSettings
from search.config.changes import changed
from search.config.evaluation import TABLE_METRICS, FidelitySettings, GateSettings
from search.config.searcher import EvolutionSettings, SearcherSettings
from search.config.space import WRITTEN, SpaceSettings
from search.config.trackers import TrackerName
from search.config.vision import VisionSettings
from search.objectives import (
    PROXY_METRICS,
    Constraint,
    Objective,
    RunMetrics,
    base_of,
    needs_training,
    of_others,
)

Text = TypeVar("Text", bound=str | Path)


def several(key: str, texts: Sequence[Text]) -> Sequence[Text]:
    """The texts. Raises ConfigError for a single one, whose letters would be taken for texts."""
    if isinstance(texts, str):
        raise ConfigError(f"{key}: expected a list of texts, got {texts!r}")
    return texts


def _as_tuple(value: Any) -> Any:
    """One kind, as in `device_kind: H100`, is a list of one; an empty text is an empty list."""
    return ((value,) if value else ()) if isinstance(value, str) else value


GENERAL = ("evolution", "aging", "random")
"""Searchers that take any space."""


class RunConfig(Value):
    """The settings of one search. Each section's keys are described at its own class.

    seed: seed of the search and of its trainings.
    candidates: number of evaluations, failed ones included.
    workers: largest number of evaluations at the same time. With `device: cuda` it is the largest number of
        GPUs, each with `per_gpu` evaluations.
    per_gpu: largest number of evaluations at the same time on each GPU of `device: cuda`. While one candidate
        trains, the next is built. An evaluation that finds too little memory is made again when it has the
        GPU's memory to itself. The number counts as 1 where `device_kind` names a kind.
    device: device that trains and measures candidates. `cuda` gives each worker a GPU of its own, `cuda:0`
        is one GPU that all workers share. `llama.cpp` measures every candidate in llama.cpp on the CPU,
        through its exported file with random weights; it trains on the CPU.
    device_kind: kinds of accelerator that candidates are measured on, by Ray's names, as `H100`. One name
        may stand without a list; empty means any kind. Every worker trains, whatever its kind, so a proxy
        that the smallest GPU of the cluster cannot hold is `out_of_memory`. Only workers on nodes of a kind
        measure there, one candidate at a time on a device. Where few workers have a kind, one of them may
        be kept ready to measure (`search.cluster.steps`). With several kinds every candidate is measured on
        each, and an objective or constraint names its kind, as `decode_ms@b1/H100`. Metrics that are
        computed or trained, such as `params` and `loss`, have no kind.
    time_s: seconds of search after which no evaluation begins, over all processes that drive the run. None
        sets no limit.
    deadline_s: seconds after which one evaluation is given up.
    retries: how often, at most, an evaluation that was lost with its worker is made again.
    repeats: share of the candidates that may be evaluated a second time (0 to 1): those whose place on the
        frontier is uncertain (`search.runs.repeats`).
    keep_weights: the candidates whose trained weights stay in the run's folder.
    trackers: programs of others that are told every score and loss curve: `tensorboard`, `wandb`, `mlflow`.
        They write into the run's folder; nothing leaves this machine unless their own variables say so.
    objectives: metrics to improve, such as `loss` and `decode_ms@b1`. Smaller is better, or larger where the
        metric says so.
    constraints: `METRIC <= NUMBER`, as in `params <= 20e6`; also with `<`, `>=` or `>`.
    data: the text.
    proxy: the short training.
    fidelity: the model that is trained for a candidate, and when its training ends early.
    gates: what is rejected before it costs anything.
    tasks: small synthetic tasks that candidates are trained on too.
    profile: what is measured.
    space: what an architecture may be.
    searcher: what proposes candidates.
    evolution: settings that searchers share.
    vision: where candidates see: images, stages of training, and what towers may be. `proxy` is then the
        first stage. None for language models.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    candidates: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    workers: Annotated[int, Field(ge=1, le=4096)] = 2
    per_gpu: Annotated[int, Field(ge=1, le=16)] = 2
    device: str = "cpu"
    device_kind: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], ...], BeforeValidator(_as_tuple)
    ] = ()
    time_s: Annotated[float, Field(gt=0)] | None = None
    deadline_s: Annotated[float, Field(gt=0)] = 900.0
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    repeats: Annotated[float, Field(ge=0, le=1)] = 0.1
    keep_weights: Literal["all", "frontier", "none"] = "all"
    trackers: tuple[TrackerName, ...] = ()
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("loss", "decode_ms@b1")
    constraints: tuple[str, ...] = ()
    data: DataSettings = DataSettings()
    proxy: ProxySettings = ProxySettings()
    fidelity: FidelitySettings = FidelitySettings()
    gates: GateSettings = GateSettings()
    tasks: TaskSettings = TaskSettings()
    profile: ProfileSettings = ProfileSettings()
    space: SpaceSettings = Field(default_factory=SpaceSettings)
    searcher: SearcherSettings = SearcherSettings()
    evolution: EvolutionSettings = EvolutionSettings()
    vision: VisionSettings | None = None

    @model_validator(mode="after")
    def _energy_has_a_counter(self) -> Self:
        if self.profile.energy_seconds and (self.device == "cpu" or engine_of(self.device)):
            raise ValueError(
                f"profile.energy_seconds: expected 0 on device {self.device}, "
                "as only GPUs have a counter of energy"
            )
        return self

    @model_validator(mode="after")
    def _profile_fits_device(self) -> Self:
        if reason := self.profile.disagreement(self.device):
            raise ValueError(f"profile.{reason} on device {self.device}")
        if not engine_of(self.device):
            return self
        if self.device != LLAMA_CPP:
            raise ValueError(f"device: expected cpu, cuda, cuda:N or {LLAMA_CPP}, got {self.device}")
        if self.device_kind:
            raise ValueError(f"device_kind: expected none on device {self.device}, which is a CPU")
        if self.profile.largest_batch:
            raise ValueError(f"profile.largest_batch: expected false on device {self.device}")
        if self.gates.table:
            raise ValueError(
                f"gates.table: expected false on device {self.device}, which has no latency table"
            )
        return self

    @model_validator(mode="after")
    def _sees_or_not(self) -> Self:
        if self.vision is None:
            if self.profile.images:
                raise ValueError(
                    "profile.images: expected 0 without a section vision, as candidates are language models, "
                    f"got {self.profile.images}"
                )
            return self
        if not self.profile.images:
            raise ValueError("profile.images: expected at least 1 with a section vision, got 0")
        if self.searcher.name not in GENERAL:
            raise ValueError(
                f"searcher.name: expected one of {', '.join(GENERAL)} with a section vision, "
                f"got {self.searcher.name}"
            )
        unlike = {
            "device_kind": self.device_kind == (),
            "fidelity.width_scale": self.fidelity.width_scale == 1,
            "tasks": self.tasks == TaskSettings(),
            "space.exportable_to": not self.space.exportable_to,
            "proxy.budgets": not self.proxy.budgets,
            f"device {self.device}": not engine_of(self.device),
        }
        if others := [name for name, absent in unlike.items() if not absent]:
            raise ValueError(f"vision: expected no {others[0]} with it")
        return self

    @model_validator(mode="after")
    def _kinds_have_workers(self) -> Self:
        kinds = self.device_kind
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"device_kind: expected each kind once, got {', '.join(kinds)}")
        if len(kinds) > self.workers:
            raise ValueError(
                f"workers: expected at least {len(kinds)}, one for each device_kind, got {self.workers}"
            )
        return self

    @model_validator(mode="after")
    def _metrics_exist(self) -> Self:
        try:
            self.parsed_objectives()
            self.parsed_constraints()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _head_fits_training(self) -> Self:
        if self.proxy.weight_normalization and not self.space.normalized_head:
            raise ValueError("proxy.weight_normalization: expected space.normalized_head: true with it")
        return self

    @model_validator(mode="after")
    def _halving_can_compare(self) -> Self:
        rungs, proxy = self.fidelity.rungs, self.proxy
        if not rungs:
            return self
        if self.vision is not None:
            self.vision.require_rungs(rungs)
            return self._known_before_training(("answer_loss",), "the answer_loss")
        steps = [tokens // proxy.batch_tokens for tokens in (*rungs, proxy.tokens)]
        if steps[0] < 1 or any(later <= sooner for sooner, later in pairwise(steps)):
            raise ValueError(
                f"fidelity.rungs: expected tokens that grow by at least a batch of {proxy.batch_tokens} and "
                f"stay below proxy.tokens, {proxy.tokens}; got {', '.join(map(str, rungs))}"
            )
        return self._known_before_training(tuple(PROXY_METRICS), "the loss")

    def _known_before_training(self, losses: Sequence[str], loss: str) -> Self:
        """Raises ValueError where rungs cannot compare candidates by a loss and what is known before it.

        losses: metrics that the loss at a rung decides.
        loss: that loss, in words.
        """
        wanted = [objective.metric for objective in self.parsed_objectives()]
        bounded = [constraint.metric for constraint in self.parsed_constraints()]
        if not any(metric in losses for metric in wanted):
            raise ValueError(
                f"fidelity.rungs: expected {loss}, which decides at a rung, among the objectives; "
                f"got {', '.join(wanted)}"
            )
        late = [metric for metric in (*wanted, *bounded) if needs_training(metric) and metric not in losses]
        if late:
            raise ValueError(
                f"fidelity.rungs: expected metrics that are known before training, besides {loss}; "
                f"got {late[0]}"
            )
        return self

    @model_validator(mode="after")
    def _table_has_a_constraint(self) -> Self:
        if self.gates.table and len(self.device_kind) > 1:
            raise ValueError(
                f"gates.table: expected one device_kind, that of the latency table, "
                f"got {', '.join(self.device_kind)}"
            )
        if self.gates.table and not any(
            base_of(item.metric) in TABLE_METRICS for item in self.parsed_constraints()
        ):
            raise ValueError(
                "gates.table: expected a constraint on a metric that the latency table predicts: "
                f"{', '.join(TABLE_METRICS)}"
            )
        return self

    @property
    def on_one_gpu(self) -> int:
        """How many evaluations share a GPU."""
        alone = self.device != "cuda" or self.device_kind
        return 1 if alone else self.per_gpu

    @property
    def at_once(self) -> int:
        """How many evaluations are made at the same time, where there is room."""
        return self.workers * self.on_one_gpu

    @property
    def metrics(self) -> RunMetrics:
        """What can be an objective, or be in a constraint."""
        return RunMetrics(self.profile, self.tasks, self.device_kind)

    @property
    def measured(self) -> ProfileSettings:
        """What is measured of a candidate: prefill briefly, where it decides nothing.

        Metrics of other packages may depend on it.
        """
        if self.profile.brief_prefill is not None:
            return self.profile
        used = [each.metric for each in self.parsed_objectives()]
        used += [each.metric for each in self.parsed_constraints()]
        brief = {base_of(name) for name in used}.isdisjoint(("prefill_ms", *of_others()))
        return self.profile.model_copy(update={"brief_prefill": brief})

    def parsed_objectives(self, names: Sequence[str] | None = None) -> tuple[Objective, ...]:
        """The metrics of these names, or the run's own objectives.

        Raises ConfigError for none, and for one given twice.
        """
        wanted = self.objectives if names is None else several("objectives", names)
        if not wanted:
            raise ConfigError("objectives: expected at least one metric, got none")
        twice = [name for name in dict.fromkeys(wanted) if wanted.count(name) > 1]
        if twice:
            raise ConfigError(
                f"objectives: expected each metric once, got {twice[0]} {wanted.count(twice[0])} times"
            )
        return tuple(self.metrics.objective(name) for name in wanted)

    def parsed_constraints(self, texts: Sequence[str] | None = None) -> tuple[Constraint, ...]:
        """The constraints of these texts, or the run's own. Raises ConfigError."""
        wanted = self.constraints if texts is None else several("where", texts)
        return tuple(self.metrics.constraint(text) for text in wanted)

    def absolute(self) -> Self:
        """The same configuration, whose paths mean the same in every working directory."""
        changed: dict[str, object] = {"data": self.data.absolute()}
        if self.vision is not None:
            images = self.vision.images.absolute()
            changed["vision"] = self.vision.model_copy(update={"images": images})
        return self.model_copy(update=changed)

    def to_yaml(self) -> str:
        return plain_yaml.dump(self.model_dump(mode="json"))


def parse(data: Any, *, where: str, written: bool = False) -> RunConfig:
    """Validates a configuration. Raises ConfigError.

    data: plain values, as YAML gives them; None means all defaults.
    where: what an error begins with, such as the file's path.
    written: whether these are the values of a configuration that was validated before. Then the choices of
        its space are not built again, which needs torch.
    """
    try:
        return RunConfig.model_validate({} if data is None else data, context=WRITTEN if written else None)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None


def load(path: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML file, or the shipped configuration of that name. Raises ConfigError.

    changes: of its keys, as in `proxy.tokens=2e6`.
    """
    return parse(changed(plain(path), changes), where=str(path))


def given(config: Mapping[str, Any] | RunConfig | Path | str) -> RunConfig:
    """A configuration given as itself, by its keys, its file or a shipped name. Raises ConfigError."""
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, str | Path):
        return load(Path(config))
    if not isinstance(config, Mapping):
        raise ConfigError(f"config: expected keys, a file or a shipped name, got {type(config).__name__}")
    return parse(dict(config), where="config")


def find_config(path: Path) -> Path:
    """The file that a path or the name of a shipped configuration means; a file of that name goes before.

    A name is one word with no folder before it and no ending behind it, as `quick`. Raises ConfigError for
    none.
    """
    if path.exists() and not path.is_dir():
        return path
    if (file := shipped.find(path, "configuration")) is not None:
        return file
    if path.is_dir() or path.suffix or len(path.parts) != 1:
        return path  # reading it says what is wrong with it
    known = ", ".join(shipped.names("configuration"))
    raise ConfigError(
        f"{path}: neither a file nor a shipped configuration: expected a YAML file or one of {known}"
    )


def plain(path: Path) -> Any:
    """What a YAML file, or the shipped configuration of that name, says; not validated.

    Raises ConfigError.
    """
    try:
        return plain_yaml.parse(find_config(path).read_text(encoding="utf-8"))
    except OSError as error:
        missing = shipped.hint(path) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{missing}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
