"""What an evaluation is given and what it returns: values without machinery."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Literal

from operators.base.value import Value
from operators.vision.vision_language import Model
from profiler.profile import MOST_ERROR, Profile, ProfileSettings
from proxy_train.images.image_corpus import ImageCorpus
from proxy_train.images.stage_settings import StageSettings, VisionScore
from proxy_train.settings import ProxyScore, ProxySettings
from proxy_train.task_settings import TaskScore, TaskSettings
from proxy_train.text.corpus import Corpus
from search.config.evaluation import FidelitySettings, GateSettings
from search.evaluation.audits import Audit
from search.evaluation.fidelity import Rung
from search.objectives import Constraint, Objective, base_of, on_kind

Status = Literal[
    "ok", "infeasible", "stopped", "diverged", "out_of_memory", "unbuildable", "timeout", "crashed", "error"
]

RATES = ("decode_tokens_per_s", "achieved_bytes_per_s", "bandwidth_fraction", "throughput_tokens_per_s")
"""Metrics that are an amount over a measured time."""


class Evaluation(Value):
    """A candidate's scores, or why it has none.

    status: `ok` has every metric; `infeasible` breaks a constraint; `stopped` learned worse than others at a
        rung of its training; `error` is a defect of the program, with its traceback. The others are failures
        of the candidate.
    reason: why the candidate has no scores; empty where it has them.
    gate: the gate that rejected the candidate, if one did.
    audits: of the gates that would have rejected it, but let it through (see `search.gates.screen`).
    metrics: flat, by name: `loss`, `decode_ms@b1`, at rungs `loss@t20000`.
    standard_errors: of metrics that are the mean of two evaluations with different seeds (see `mean`).
    measured_errors, taints: of such a mean, the content of `errors` and `tainted`; None where the profiles
        have it.
    profile: what was measured, where the run does not have several kinds of device.
    profiles: by kind of device, where the run has several.
    proxy: the score of the proxy training.
    proxy_width: width of the trained model, where that is not the candidate itself (see
        `search.evaluation.fidelity`).
    vision: the score of a candidate that sees.
    tasks: the scores of the tasks.
    backends: operator -> the backend that was used.
    seed: of weights and batches.
    seconds: wall time by purpose. `profile` and `train`; `tasks` where there are any. `wait` is the time for
        the device's locks, and includes building the model to be measured. `queue`, where the evaluation was
        made in parts, is the time that the candidate waited for workers, which did something else meanwhile.
    versions: of Python and PyTorch.
    traceback: of an `error`.
    """

    status: Status
    reason: str = ""
    gate: str = ""
    audits: tuple[Audit, ...] = ()
    metrics: Mapping[str, float] = {}
    standard_errors: Mapping[str, float] = {}
    measured_errors: Mapping[str, float] | None = None
    taints: Mapping[str, str] | None = None
    profile: Profile | None = None
    profiles: Mapping[str, Profile] = {}
    proxy: ProxyScore | None = None
    proxy_width: int | None = None
    vision: VisionScore | None = None
    tasks: tuple[TaskScore, ...] = ()
    backends: Mapping[str, str] = {}
    seed: int
    seconds: Mapping[str, float] = {}
    versions: Mapping[str, str] = {}
    traceback: str = ""

    @property
    def each_profile(self) -> Mapping[str, Profile]:
        """The profiles by kind of device; the kind is empty where the run has only one."""
        return {"": self.profile} if self.profile else self.profiles

    def errors(self) -> dict[str, float]:
        """Returns by metric how far a measured value may be off, relative to it."""
        if self.measured_errors is not None:
            return dict(self.measured_errors)
        return {
            on_kind(name, kind): error
            for kind, profile in self.each_profile.items()
            for name, error in profile.errors().items()
        }

    def tainted(self) -> Mapping[str, str]:
        """Returns by metric why a measured value should not be trusted; metrics that are absent are clean."""
        if self.taints is not None:
            return dict(self.taints)
        return {
            on_kind(name, kind): reason
            for kind, profile in self.each_profile.items()
            for name, reason in profile.taints().items()
        }


def mean(first: Evaluation, second: Evaluation) -> Evaluation:
    """Returns the first evaluation with the mean of both evaluations' metrics.

    The first stays as it is where the second has no scores. A metric that follows from other metrics, as
    tokens a second from the time of a step, follows from their means. A tainted value is left out where the
    other one is clean. Two clean values that differ by more than MOST_ERROR make a tainted mean. Where the
    second was not trained, the metrics of training are the first's.
    """
    if first.status != "ok" or second.status != "ok":
        return first
    at_first, at_second = first.tainted(), second.tainted()
    both, means = list[str](), dict(first.metrics)
    for name in first.metrics:
        if name not in second.metrics:
            continue
        if name in at_first and name not in at_second:
            means[name] = second.metrics[name]
        elif name in at_second and name not in at_first:
            continue
        else:
            both.append(name)
            means[name] = _mean_of(name, first.metrics[name], second.metrics[name])
    off = {name: abs(first.metrics[name] - second.metrics[name]) / 2 for name in both}
    errors, taints = dict[str, float](), dict[str, str]()
    of_first, of_second = first.errors(), second.errors()
    for name in {**of_first, **of_second, **at_first, **at_second}:
        if name not in means:
            continue
        cleanest = of_second if name in at_first and name not in at_second else of_first
        error = cleanest.get(name)
        if name in off:
            apart = off[name] / abs(means[name]) if means[name] else 0.0
            error = max(error or 0.0, apart)
            if apart > MOST_ERROR:
                taints[name] = (
                    f"two measurements differ: {first.metrics[name]:.4g} and {second.metrics[name]:.4g}, "
                    f"expected within ± {MOST_ERROR:.0%} of their mean"
                )
        if name in at_first and name in at_second:
            taints[name] = at_first[name]
        if error is not None:
            errors[name] = error
    return first.model_copy(
        update={
            "metrics": means,
            "standard_errors": off,
            "measured_errors": errors,
            "taints": taints,
        }
    )


def _mean_of(name: str, first: float, second: float) -> float:
    """Returns the mean of two values of a metric; a derived metric follows from the mean of its source.

    A rate has the mean of the times behind it. A perplexity has the mean of the losses behind it.
    """
    base = base_of(name)
    if base in RATES and first > 0 and second > 0:
        return 2 / (1 / first + 1 / second)
    if base == "perplexity" and first > 0 and second > 0:
        return sqrt(first * second)
    return (first + second) / 2


@dataclass(frozen=True)
class Job:
    """All that a worker needs to evaluate one candidate.

    deadline_s: seconds after which the evaluation is given up.
    rungs: what is known of the other candidates when the job is submitted.
    table_said: the latency table's reason against the candidate, which is to be audited.
    kinds: the kinds of device that it is measured on, where that matters; see `RunConfig.device_kind`.
    trains: whether it is also trained.
    images, stages: what a candidate that sees is trained on, and how; None for a language model.
    keeps_weights: whether its trained weights are wanted.
    weights_file: where the worker writes them; empty to return them, as from another machine.
    """

    number: int
    architecture: Model
    corpus: Corpus
    proxy: ProxySettings
    profile: ProfileSettings
    constraints: tuple[Constraint, ...]
    device: str
    seed: int
    deadline_s: float
    fidelity: FidelitySettings
    tasks: TaskSettings
    gates: GateSettings = field(default_factory=GateSettings)
    objectives: tuple[Objective, ...] = ()
    rungs: tuple[Rung, ...] = ()
    table_said: str = ""
    kinds: tuple[str, ...] = ()
    trains: bool = True
    images: ImageCorpus | None = None
    stages: StageSettings | None = None
    keeps_weights: bool = True
    weights_file: str = ""


@dataclass(frozen=True)
class Outcome:
    """An evaluation and, where training ended well, the trained weights.

    weights: content of a safetensors file; None where the worker wrote them or none are wanted. Weights of a
        narrower proxy fit no model of the candidate and are left out.
    """

    evaluation: Evaluation
    weights: bytes | None = None


@dataclass(frozen=True)
class Measured:
    """What is known of a candidate before it is trained.

    profiles: by kind of device, as in Evaluation.each_profile.
    seconds: wall time by purpose, as in Evaluation.
    audits: as in Evaluation.
    """

    profiles: Mapping[str, Profile] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    audits: tuple[Audit, ...] = ()

    def also(self, kind: str, profile: Profile) -> "Measured":
        return replace(self, profiles={**self.profiles, kind: profile})

    def after(self, seconds: Mapping[str, float]) -> "Measured":
        """Returns it with more wall time, by purpose."""
        return replace(
            self,
            seconds={
                **self.seconds,
                **{name: self.seconds.get(name, 0.0) + more for name, more in seconds.items()},
            },
        )

    def metrics(self) -> dict[str, float]:
        return {
            on_kind(name, kind): value
            for kind, profile in self.profiles.items()
            for name, value in profile.metrics().items()
        }

    def known(self) -> dict[str, object]:
        """Returns it as fields of an Evaluation."""
        found = {"profile": self.profiles[""]} if "" in self.profiles else {"profiles": self.profiles}
        used = {
            f"{name}/{kind}" if kind else name: one
            for kind, each in self.profiles.items()
            for name, one in each.backends.items()
        }
        return {
            **found,
            "metrics": self.metrics(),
            "seconds": self.seconds,
            "backends": used,
            "audits": self.audits,
        }


UNMEASURED = Measured()


# The purpose, among wall times, of waiting for workers.
QUEUE = "queue"


def worked(seconds: Mapping[str, float]) -> dict[str, float]:
    """Returns the wall times, by purpose, that workers spent: all but the queue."""
    return {purpose: spent for purpose, spent in seconds.items() if purpose != QUEUE}
