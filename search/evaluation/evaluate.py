"""Scores one candidate: gates from cheap to dear. Runs in a worker; returns values, writes nothing.

`evaluate` is the whole of it. Different workers can do its two parts, `measure` and `train_measured`.
"""

import time
from dataclasses import replace

from operators.base.errors import DeviceError
from profiler.metrics import MetricName
from profiler.process.worker import ProfilingWorker
from profiler.profile import Profile
from search.evaluation.audits import LATENCY, TABLE, Audit, audits
from search.evaluation.failures import Failure
from search.evaluation.outcome import UNMEASURED, Job, Measured, Outcome
from search.evaluation.profiling import profiled
from search.evaluation.settled import beside_others, failure, settled
from search.evaluation.training import train_measured
from search.objectives import first_broken, on_kind

# The share of an evaluation's deadline that its profile gets. The profile's time must run out before the
# whole deadline does: when that passes, the worker that evaluates is ended.
PROFILE_SHARE = 0.5


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

    return settled(job.seed, known, work)


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

    found = beside_others(job.device, profile)
    held = found.lock_s if isinstance(found, Profile) else 0.0
    seconds["profile"] = seconds.get("profile", 0.0) + held
    seconds["wait"] = seconds.get("wait", 0.0) + time.perf_counter() - start - held
    if isinstance(found, Profile):
        for metric in [*(each.metric for each in job.objectives), *(each.metric for each in job.constraints)]:
            name = MetricName.parse(metric)
            if (reason := found.absent.get(name.metric)) and metric == on_kind(str(name.plain), kind):
                raise DeviceError(f"device {job.device} cannot measure {metric}: {reason}")
    return found
