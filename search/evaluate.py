"""Scores one candidate: gates from cheap to dear. Runs in a worker; returns values, writes nothing."""

import platform
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from safetensors.torch import save

from operators import Architecture
from operators.errors import BackendError, DataError, DeviceError, DivergedError
from operators.value import Value
from profiler.device import memory_errors
from profiler.lock import shared
from profiler.measure import Profile, ProfileSettings
from profiler.worker import ProfilingWorker
from proxy_train.data import Corpus
from proxy_train.tasks import TaskScore, TaskSettings, train_task
from proxy_train.tasks import metrics as task_metrics
from proxy_train.train import ProxyScore, ProxySettings, train
from search.fidelity import FidelitySettings, proxy_of
from search.objectives import Constraint, first_broken
from search.profiling import Failure, profiled

Status = Literal["ok", "infeasible", "diverged", "out_of_memory", "unbuildable", "timeout", "crashed", "error"]


# Of an evaluation's deadline, for the profile: it must pass before the whole deadline does, which costs the worker that evaluates.
PROFILE_SHARE = 0.5


class Evaluation(Value):
    """A candidate's scores, or why it has none.

    status: `ok` has every metric; `infeasible` breaks a constraint; `error` is a defect of the program, with its traceback.
    metrics: flat, by name (`loss`, `decode_ms@b1`). proxy_width: of the model that was trained, where it is not the candidate itself
    (see `search.fidelity`). seconds: wall time by purpose: `profile`, `train`, `tasks` where there are any, and `wait` for the device's
    locks, building the model to be measured included.
    """

    status: Status
    reason: str = ""
    metrics: Mapping[str, float] = {}
    profile: Profile | None = None
    proxy: ProxyScore | None = None
    proxy_width: int | None = None
    tasks: tuple[TaskScore, ...] = ()
    backends: Mapping[str, str] = {}
    seed: int
    seconds: Mapping[str, float] = {}
    versions: Mapping[str, str] = {}
    traceback: str = ""


@dataclass(frozen=True)
class Job:
    """All that a worker needs to evaluate one candidate. deadline_s: after which it is given up."""

    number: int
    architecture: Architecture
    corpus: Corpus
    proxy: ProxySettings
    profile: ProfileSettings
    constraints: tuple[Constraint, ...]
    device: str
    seed: int
    deadline_s: float
    fidelity: FidelitySettings
    tasks: TaskSettings


@dataclass(frozen=True)
class Outcome:
    """An evaluation and, where training ended well, the trained weights as a safetensors file's content.

    Weights of a narrower proxy fit no model of the candidate and are left out.
    """

    evaluation: Evaluation
    weights: bytes | None = None


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__}


def failure(job: Job, status: Status, reason: str, **known: object) -> Outcome:
    """The outcome of a candidate that has no scores."""
    data = {"status": status, "reason": reason, "seed": job.seed, "versions": versions(), **known}
    return Outcome(Evaluation.model_validate(data))


def evaluate(job: Job, profiler: ProfilingWorker) -> Outcome:
    """Profiles the candidate, and trains it here if the constraints still hold. What goes wrong with it is the outcome.

    Raises DeviceError, DataError and OSError for what is the machine's fault, as a GPU that fails or a full disk: another may do better.
    """
    known: dict[str, object] = {}
    seconds: dict[str, float] = {}
    try:
        start = time.perf_counter()
        profile = profiled(profiler, job.architecture, job.profile, seed=job.seed, deadline_s=PROFILE_SHARE * job.deadline_s)
        if isinstance(profile, Failure):
            return failure(job, profile.status, profile.reason)
        seconds |= {"profile": profile.lock_s, "wait": time.perf_counter() - start - profile.lock_s}
        metrics = profile.metrics()
        known = {"profile": profile, "metrics": metrics, "seconds": seconds, "backends": profile.backends}
        if reason := first_broken(job.constraints, metrics):
            return failure(job, "infeasible", reason, **known)

        proxy, waiting, paused = proxy_of(job.architecture, job.fidelity), time.perf_counter(), 0.0
        scaled = proxy.width != job.architecture.width
        with shared(job.device) as give_way, memory_errors():
            start = time.perf_counter()

            def pause() -> float:
                nonlocal paused
                paused += (waited := give_way())
                return waited

            trained = train(proxy, job.corpus, job.proxy, seed=job.seed, device=job.device, pause=pause)
            seconds |= {"train": time.perf_counter() - start - paused, "wait": seconds["wait"] + start - waiting + paused}
            metrics |= trained.score.metrics()
            known |= {"proxy": trained.score, "proxy_width": proxy.width if scaled else None, "metrics": metrics}
            if job.tasks.names and first_broken(job.constraints, metrics) is None:
                start = time.perf_counter()
                scores = tuple(train_task(name, proxy, job.tasks, seed=job.seed, device=job.device) for name in job.tasks.names)
                seconds |= {"tasks": time.perf_counter() - start}
                metrics |= task_metrics(scores)
                known |= {"tasks": scores}
            torch.cuda.empty_cache()  # what training used is for the next measurement, which is made by another process
        if reason := first_broken(job.constraints, metrics):
            return failure(job, "infeasible", reason, **known)
        evaluation = Evaluation.model_validate({"status": "ok", "seed": job.seed, "versions": versions(), **known})
        return Outcome(evaluation, None if scaled else save({name: tensor.contiguous() for name, tensor in trained.weights.items()}))
    except DivergedError as error:
        return failure(job, "diverged", str(error), **known)
    except BackendError as error:
        return failure(job, "unbuildable", str(error), **known)
    except (MemoryError, torch.OutOfMemoryError) as error:
        return failure(job, "out_of_memory", _short(error), **known)
    except (DeviceError, DataError, OSError):
        raise
    except Exception as error:  # a defect: the driver records it with its traceback and stops the search
        return failure(job, "error", _short(error), traceback=traceback.format_exc(), **known)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
