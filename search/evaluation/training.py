"""Trains a candidate that was measured, and scores it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from operators import Architecture, VisionLanguage
from operators.base.errors import RunError
from operators.base.files import write_whole
from profiler.device.lock import shared
from profiler.device.memory import give_back_memory, memory_errors
from profiler.device.names import computes_on
from proxy_train.images.decoders import kept_decoder
from proxy_train.images.train import VisionTrained, train_vision
from proxy_train.task_settings import TaskScore
from proxy_train.task_settings import metrics as task_metrics
from proxy_train.tasks import train_task
from proxy_train.train import Trained, train
from search.evaluation.audits import Audit
from search.evaluation.fidelity import proxy_of
from search.evaluation.halving import Halving, Stopped
from search.evaluation.outcome import Evaluation, Job, Measured, Outcome
from search.evaluation.settled import beside_others, failure, settled, versions
from search.objectives import computed_by_others, first_broken


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
        halving = Halving(job, metrics, audited)

        def train_in_memory(*, alone: bool) -> Trained | Stopped:
            waiting = time.perf_counter()
            with shared(computes_on(job.device)) as give_way, memory_errors():
                seconds["wait"] += time.perf_counter() - waiting
                try:
                    with _clocked(seconds, give_way) as pause:
                        trained = train(
                            proxy,
                            job.corpus,
                            job.proxy,
                            seed=job.seed,
                            device=computes_on(job.device),
                            pause=pause,
                            rungs=job.fidelity.rungs,
                            on_rung=halving,
                            spares_memory=alone,
                        )
                    metrics.update(trained.score.metrics())
                    known["proxy"] = trained.score
                    if job.tasks.names and first_broken(job.constraints, metrics) is None:
                        known["tasks"] = _tasks(job, proxy, metrics, seconds)
                    return trained
                except Stopped as at_rung:
                    return at_rung.with_traceback(None)  # the traceback would hold the model
                finally:
                    give_back_memory()

        trained = beside_others(job.device, train_in_memory)
        if isinstance(trained, Stopped):
            return failure(job.seed, "stopped", str(trained), gate=trained.gate, **known)
        wanted = [*(each.metric for each in job.objectives), *(each.metric for each in job.constraints)]
        metrics.update(computed_by_others(wanted, job.architecture, metrics))
        if reason := first_broken(job.constraints, metrics):
            return failure(job.seed, "infeasible", reason, **known)
        evaluation = Evaluation.model_validate(
            {"status": "ok", "seed": job.seed, "versions": versions(), **known}
        )
        keeps = job.keeps_weights and not scaled
        return Outcome(evaluation, _kept(trained.weights, job.weights_file) if keeps else None)

    return settled(job.seed, known, work)


@contextmanager
def _clocked(seconds: dict[str, float], give_way: Callable[[], float]) -> Iterator[Callable[[], float]]:
    """Notes the time of a training, however it ends; gives the `pause` of `train`.

    seconds: wall times by purpose. What the training gave way is added to `wait`, the rest is `train`.
    give_way: waits while another process wants the device for itself, and returns how long (s).
    """
    start, paused = time.perf_counter(), 0.0

    def pause() -> float:
        nonlocal paused
        paused += (waited := give_way())
        return waited

    try:
        yield pause
    finally:
        seconds |= {"train": time.perf_counter() - start - paused, "wait": seconds["wait"] + paused}


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
    images, stages, device = job.images, job.stages, computes_on(job.device)
    give_way: Callable[[], float]

    def train_in_memory(*, alone: bool) -> VisionTrained | Stopped:
        def first_stage() -> Mapping[str, Tensor]:
            nonlocal give_way
            with shared(device) as give_way, memory_errors():
                return train(
                    value.language,
                    job.corpus,
                    job.proxy,
                    seed=job.seed,
                    device=device,
                    pause=pause,
                    spares_memory=alone,
                ).weights

        nonlocal give_way
        decoder = None
        if stages.stages == "three":
            decoder = kept_decoder(
                value.language, job.corpus, job.proxy, first_stage, seed=job.seed, device=device
            )
        with shared(device) as give_way, memory_errors():
            try:
                return train_vision(
                    value,
                    job.corpus,
                    images,
                    job.proxy,
                    stages,
                    seed=job.seed,
                    device=device,
                    decoder=decoder,
                    pause=pause,
                    rungs=job.fidelity.rungs,
                    on_rung=halving,
                )
            except Stopped as at_rung:
                return at_rung.with_traceback(None)  # the traceback would hold the model
            finally:
                give_back_memory()

    halving = Halving(job, metrics, audited)
    with _clocked(seconds, lambda: give_way()) as pause:
        trained = beside_others(job.device, train_in_memory)
    if isinstance(trained, Stopped):
        return failure(job.seed, "stopped", str(trained), gate=trained.gate, **known)
    metrics.update(trained.score.metrics())
    known["vision"] = trained.score
    if reason := first_broken(job.constraints, metrics):
        return failure(job.seed, "infeasible", reason, **known)
    found = Evaluation.model_validate({"status": "ok", "seed": job.seed, "versions": versions(), **known})
    return Outcome(found, _kept(trained.weights, job.weights_file) if job.keeps_weights else None)


def _kept(weights: Mapping[str, Tensor], file: str) -> bytes | None:
    """Writes the weights into the file, or returns them for the driver to write where none is named.

    While a driver writes half a gigabyte, it gives no worker anything to do.
    """
    content = save({name: tensor.contiguous() for name, tensor in weights.items()})
    if file:
        # Where the disk is full, the driver says so.
        with suppress(RunError):
            write_whole(Path(file), content)
            return None
    return content
