"""Scores one candidate: gates from cheap to dear. Runs in a worker; returns values, writes nothing.

`evaluate` is the whole of it. Different workers can do its two parts, `measure` and `train_measured`.
"""

import platform
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save
from torch import Tensor

from operators import Architecture, VisionLanguage
from operators.base.errors import DataError, DeviceError, RunError
from operators.base.files import write_whole
from profiler.device.device import give_back_memory, memory_errors
from profiler.device.lock import exclusive, shared
from profiler.device.names import computes_on
from profiler.metrics import MetricName
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile
from proxy_train.images.decoders import kept_decoder
from proxy_train.images.train import train_vision
from proxy_train.task_settings import TaskScore
from proxy_train.task_settings import metrics as task_metrics
from proxy_train.tasks import train_task
from proxy_train.train import Trained, train
from search.evaluation.audits import LATENCY, RUNGS, TABLE, Audit, audits
from search.evaluation.failures import CANDIDATE_ERRORS, Failure, described, failure_of
from search.evaluation.fidelity import costs_before_training, is_rung_loss, proxy_of, rung_loss, rung_metric
from search.evaluation.outcome import UNMEASURED, Evaluation, Job, Measured, Outcome, Status
from search.evaluation.profiling import profiled
from search.objectives import computed_by_others, first_broken, on_kind

T = TypeVar("T")

# The share of an evaluation's deadline that its profile gets. The profile's time must run out before the
# whole deadline does: when that passes, the worker that evaluates is ended.
PROFILE_SHARE = 0.5


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__}


def failure(seed: int, status: Status, reason: str, **known: object) -> Outcome:
    """Returns the outcome of a candidate that has no scores."""
    data = {"status": status, "reason": reason, "seed": seed, "versions": versions(), **known}
    return Outcome(Evaluation.model_validate(data))


def evaluate(job: Job, profiler: ProfilingWorker) -> Outcome:
    """Measures the candidate and trains it here, as far as the gates let it.

    Anything that goes wrong with the candidate is the outcome.

    Raises DeviceError, DataError and OSError for what is the machine's fault, as a GPU that fails or a full
    disk: another machine may do better.
    """
    found = measure(job, profiler)
    return found if isinstance(found, Outcome) else train_measured(job, found)


def measure(
    job: Job, profiler: ProfilingWorker, before: Measured = UNMEASURED, *, kind: str = ""
) -> Measured | Outcome:
    """Profiles the candidate here and adds the profile to what was known before.

    Where the profile ends the evaluation, the result is the outcome.

    before: what was known before.
    kind: of the device, where the run has several kinds.

    Raises as `evaluate` does.
    """
    known = before.known() if before.profiles else {}

    def work() -> Measured | Outcome:
        here: dict[str, float] = {}
        found = _profiled(job, profiler, here, kind=kind)
        if isinstance(found, Failure):
            return failure(
                job.seed, found.status, f"on {kind}: {found.reason}" if kind else found.reason, **known
            )
        measured, audited = before.also(kind, found), list(before.audits)
        if (reason := first_broken(job.constraints, measured.metrics())) and audits(
            job.gates.audit, LATENCY, job.architecture, seed=job.seed
        ):
            again = _profiled(job, profiler, here, kind=kind)
            if isinstance(again, Profile):
                measured, first_said = before.also(kind, again), reason
                reason = first_broken(job.constraints, measured.metrics())
                audited.append(Audit(gate=LATENCY, reason=first_said, wrong=reason is None))
        if job.table_said:
            audited.append(Audit(gate=TABLE, reason=job.table_said, wrong=reason is None))
        measured = replace(measured.after(here), audits=tuple(audited))
        return (
            failure(job.seed, "infeasible", reason, gate=LATENCY, **measured.known()) if reason else measured
        )

    return _settled(job.seed, known, work)


def train_measured(job: Job, measured: Measured) -> Outcome:
    """Trains a candidate that was measured, as far as the rungs let it, if the job wants a training.

    Raises as `evaluate` does.
    """
    seconds, audited, metrics = dict(measured.seconds), list(measured.audits), measured.metrics()
    known = {**measured.known(), "metrics": metrics, "seconds": seconds, "audits": audited}

    def work() -> Outcome:
        if not job.trains:
            return Outcome(
                Evaluation.model_validate({"status": "ok", "seed": job.seed, "versions": versions(), **known})
            )
        if isinstance(job.architecture, VisionLanguage):
            return _trained_to_answer(job, job.architecture, known, metrics, seconds, audited)
        proxy = proxy_of(job.architecture, job.fidelity.width_scale)
        scaled = proxy.width != job.architecture.width
        known["proxy_width"] = proxy.width if scaled else None
        halving = _Halving(job, metrics, audited)

        def train_in_memory(*, alone: bool) -> Trained | _Stopped:
            waiting = time.perf_counter()
            with shared(computes_on(job.device)) as give_way, memory_errors():
                seconds["wait"] += time.perf_counter() - waiting
                trained = _trained(job, proxy, seconds, give_way, halving, spares_memory=alone)
                if isinstance(trained, Trained):
                    metrics.update(trained.score.metrics())
                    known["proxy"] = trained.score
                    if job.tasks.names and first_broken(job.constraints, metrics) is None:
                        known["tasks"] = _tasks(job, proxy, metrics, seconds)
                give_back_memory()
                return trained

        trained = _beside_others(job, train_in_memory)
        if isinstance(trained, _Stopped):
            return failure(job.seed, "stopped", str(trained), gate=trained.gate, **known)
        wanted = [*(each.metric for each in job.objectives), *(each.metric for each in job.constraints)]
        metrics.update(computed_by_others(wanted, job.architecture, metrics))
        if reason := first_broken(job.constraints, metrics):
            return failure(job.seed, "infeasible", reason, **known)
        evaluation = Evaluation.model_validate(
            {"status": "ok", "seed": job.seed, "versions": versions(), **known}
        )
        return Outcome(evaluation, None if scaled else _kept(job, trained.weights))

    return _settled(job.seed, known, work)


def _beside_others(job: Job, attempt: Callable[..., T]) -> T:
    """Does work that may find too little memory on a GPU, as other evaluations use it.

    After a lack of memory it is done again with the memory to itself, and so ends as if it were alone.

    attempt: called as attempt(alone=False), and after a lack of memory as attempt(alone=True)
    """
    device = computes_on(job.device)
    if device == "cpu":
        return attempt(alone=True)
    with shared(device, of="memory"), suppress(MemoryError, torch.OutOfMemoryError):
        return attempt(alone=False)
    give_back_memory()
    with exclusive(device, of="memory"):
        return attempt(alone=True)


def _tasks(
    job: Job, proxy: Architecture, metrics: dict[str, float], seconds: dict[str, float]
) -> tuple[TaskScore, ...]:
    """Trains the model on the job's tasks. metrics, seconds: are added to."""
    start = time.perf_counter()
    scores = tuple(
        train_task(name, proxy, job.tasks, seed=job.seed, device=computes_on(job.device))
        for name in job.tasks.names
    )
    seconds["tasks"] = time.perf_counter() - start
    metrics.update(task_metrics(scores))
    return scores


def _trained_to_answer(
    job: Job,
    value: VisionLanguage,
    known: dict[str, object],
    metrics: dict[str, float],
    seconds: dict[str, float],
    audited: list[Audit],
) -> Outcome:
    """Trains a candidate that sees, in its stages and as far as the rungs let it, and scores it.

    A decoder that candidates share is trained once. known, metrics, seconds, audited: are added to.
    """
    if job.images is None or job.stages is None:
        raise RuntimeError("a candidate that sees, and no images to train it on")
    device, start, paused = computes_on(job.device), time.perf_counter(), 0.0
    give_way: Callable[[], float]

    def pause() -> float:
        nonlocal paused
        paused += (waited := give_way())
        return waited

    def first_stage() -> Mapping[str, Tensor]:
        nonlocal give_way
        with shared(device) as give_way, memory_errors():
            return train(
                value.language, job.corpus, job.proxy, seed=job.seed, device=device, pause=pause
            ).weights

    decoder = None
    if job.stages.stages == "three":
        decoder = kept_decoder(
            value.language, job.corpus, job.proxy, first_stage, seed=job.seed, device=device
        )
    stopped: _Stopped | None = None
    with shared(device) as give_way, memory_errors():
        try:
            trained = train_vision(
                value,
                job.corpus,
                job.images,
                job.proxy,
                job.stages,
                seed=job.seed,
                device=device,
                decoder=decoder,
                pause=pause,
                rungs=job.fidelity.rungs,
                on_rung=_Halving(job, metrics, audited),
            )
        except _Stopped as at_rung:
            stopped = at_rung.with_traceback(None)  # the traceback would hold the model
        give_back_memory()
    seconds |= {"train": time.perf_counter() - start - paused, "wait": seconds["wait"] + paused}
    if stopped is not None:
        return failure(job.seed, "stopped", str(stopped), gate=stopped.gate, **known)
    metrics.update(trained.score.metrics())
    known["vision"] = trained.score
    if reason := first_broken(job.constraints, metrics):
        return failure(job.seed, "infeasible", reason, **known)
    found = Evaluation.model_validate({"status": "ok", "seed": job.seed, "versions": versions(), **known})
    return Outcome(found, _kept(job, trained.weights))


def _kept(job: Job, weights: Mapping[str, Tensor]) -> bytes | None:
    """Writes the weights where the job wants them, or returns them for the driver to write.

    While a driver writes half a gigabyte, it gives no worker anything to do.
    """
    if not job.keeps_weights:
        return None
    content = save({name: tensor.contiguous() for name, tensor in weights.items()})
    if job.weights_file:
        # Where the disk is full, the driver says so.
        with suppress(RunError):
            write_whole(Path(job.weights_file), content)
            return None
    return content


def _settled(seed: int, known: Mapping[str, object], work: Callable[[], T]) -> T | Outcome:
    """Returns what `work` returns, or the outcome of a candidate that ends it with an error.

    known: fields of the evaluation that are known when the error happens.
    """
    try:
        return work()
    except CANDIDATE_ERRORS as error:
        found = failure_of(error)
        failed = failure(seed, found.status, found.reason, **known)
    except (DeviceError, DataError, OSError):
        raise
    except Exception as error:  # a defect: the driver records it with its traceback and stops the search
        failed = failure(seed, "error", described(error), traceback=traceback.format_exc(), **known)
    give_back_memory()  # the error, which held the model, is gone
    return failed


def _profiled(
    job: Job, profiler: ProfilingWorker, seconds: dict[str, float], *, kind: str
) -> Profile | Failure:
    """Measures once, within the time that is left for measurements on this device.

    seconds: wall times by purpose; the time that this measurement took is added.

    Raises DeviceError where the device cannot measure what an objective or a constraint asks for.
    """
    start = time.perf_counter()
    left = PROFILE_SHARE * job.deadline_s / max(1, len(job.kinds)) - sum(seconds.values())

    def profile(*, alone: bool) -> Profile | Failure:
        found = profiled(profiler, job.architecture, job.profile, seed=job.seed, deadline_s=left)
        if isinstance(found, Failure) and found.status == "out_of_memory" and not alone:
            raise MemoryError(found.reason)
        return found

    found = _beside_others(job, profile)
    held = found.lock_s if isinstance(found, Profile) else 0.0
    seconds["profile"] = seconds.get("profile", 0.0) + held
    seconds["wait"] = seconds.get("wait", 0.0) + time.perf_counter() - start - held
    if isinstance(found, Profile):
        for metric in [*(each.metric for each in job.objectives), *(each.metric for each in job.constraints)]:
            name = MetricName.parse(metric)
            if (reason := found.absent.get(name.metric)) and metric == on_kind(str(name.plain), kind):
                raise DeviceError(f"device {job.device} cannot measure {metric}: {reason}")
    return found


def _trained(
    job: Job,
    proxy: Architecture,
    seconds: dict[str, float],
    give_way: Callable[[], float],
    on_rung: "_Halving",
    *,
    spares_memory: bool,
) -> "Trained | _Stopped":
    """Returns the training, or why a rung stopped it.

    spares_memory: as for `train`.
    seconds: wall times by purpose; the time of the training is added however it ends.
    """
    start, paused = time.perf_counter(), 0.0

    def pause() -> float:
        nonlocal paused
        paused += (waited := give_way())
        return waited

    try:
        rungs = job.fidelity.rungs
        return train(
            proxy,
            job.corpus,
            job.proxy,
            seed=job.seed,
            device=computes_on(job.device),
            pause=pause,
            rungs=rungs,
            on_rung=on_rung,
            spares_memory=spares_memory,
        )
    except _Stopped as stopped:
        found = stopped.with_traceback(None)  # the traceback would hold the model
    finally:
        seconds |= {"train": time.perf_counter() - start - paused, "wait": seconds["wait"] + paused}
    give_back_memory()
    return found


class _Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Ends a training at a rung; its text gives the reason."""

    def __init__(self, gate: str, reason: str) -> None:
        super().__init__(reason)
        self.gate = gate


class _Halving:
    """Called at a rung: notes the loss in `metrics`, and raises _Stopped for a loss that is too large.

    A candidate that is let through for an audit goes on, and its reason is noted in `audited`.
    """

    def __init__(self, job: Job, metrics: dict[str, float], audited: list[Audit]) -> None:
        costs, eta = costs_before_training(job.objectives, metrics), job.fidelity.eta
        self._limits = (
            {rung.tokens: rung.limit(costs, eta=eta) for rung in job.rungs} if costs is not None else {}
        )
        self._lets_all_through = audits(job.gates.audit, RUNGS, job.architecture, seed=job.seed)
        self._job, self._metrics, self._audited = job, metrics, audited

    def __call__(self, tokens: int, loss: float) -> None:
        deciding, limit = rung_loss(self._job.objectives), self._limits.get(tokens)
        gate = rung_metric(tokens, deciding)
        self._metrics[gate] = loss
        if limit is None or loss <= limit:
            return
        known = ", ".join(
            objective.metric for objective in self._job.objectives if not is_rung_loss(objective.metric)
        )
        others = f"others no worse in {known}" if known else "others"
        share = f"1 in {self._job.fidelity.eta} {others}"
        amount = f"{tokens:,} tokens" if deciding == "loss" else f"{tokens:,} examples"
        words = deciding.replace("_", " ")
        reason = f"{words} {loss:.4f} after {amount}: expected at most {limit:.4f}, as {share} had"
        if not self._lets_all_through:
            raise _Stopped(gate, reason)
        if gate not in {
            audit.gate for audit in self._audited
        }:  # it is there already where a training began anew for lack of memory
            self._audited.append(Audit(gate=gate, reason=reason))
