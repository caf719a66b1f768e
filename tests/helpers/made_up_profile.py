"""Profiles of a device whose times are known exactly; they stand where a process would measure."""

import pytest

from operators import Architecture
from operators.cost import cost
from profiler.device.nvml import Reading
from profiler.process.worker import ProfilingWorker
from profiler.profile import Conditions, PointProfile, Profile, ProfileSettings
from profiler.timing import Timing


def exactly(ms: float) -> Timing:
    """Returns a timing whose samples all took as long."""
    return Timing(median_ms=ms, iqr_ms=0.0, p90_ms=ms, n=10, stopped_by="precision", samples_ms=(ms,) * 10)


def decode_ms(architecture: Architecture, batch: int, context: int) -> float:
    """Returns what a decode step takes on the made-up device (ms)."""
    return architecture.depth + architecture.width / 64 + batch / 8 + context / 1024


def prefill_ms(architecture: Architecture, batch: int, context: int) -> float:
    """Returns what reading the context takes on the made-up device (ms)."""
    return batch * context * decode_ms(architecture, 1, 0) / 16


CALM = Conditions(
    anchor_before=exactly(0.5),
    anchor_after=exactly(0.5),
    drift=0.0,
    max_drift=0.5,
    before=Reading(),
    after=Reading(),
    clock_reasons=(),
    violations_ns={},
    foreign_pids=(),
    notes=("nvml: a CPU has no NVML",),
    attempts=1,
    tainted=(),
    lock_s=0.2,
    busy_s=0.1,
    core_share=1.0,
)


def made_up_profile(architecture: Architecture, settings: ProfileSettings) -> Profile:
    """Returns the profile that the made-up device, a CPU, has of an architecture."""
    points = []
    for context in settings.contexts:
        for batch in settings.batch_sizes:
            computed = cost(architecture, batch=batch, context=context)
            points.append(
                PointProfile(
                    batch=batch,
                    context=context,
                    prefill=exactly(prefill_ms(architecture, batch, context)),
                    decode=exactly(decode_ms(architecture, batch, context)),
                    peak_memory_bytes=computed.param_bytes + computed.state_bytes,
                    kv_bytes=computed.kv_bytes,
                    recurrent_bytes=computed.recurrent_bytes,
                    decode_bytes=computed.decode_bytes,
                )
            )
    whole = cost(architecture, batch=1, context=1)
    return Profile(
        device="cpu",
        device_name="made up",
        dtype="float32",
        threads=settings.threads,
        contexts=settings.contexts,
        params=whole.params,
        param_bytes=whole.param_bytes,
        points=tuple(points),
        copy_bytes_per_s=1e9,
        datasheet_bytes_per_s=None,
        conditions=CALM,
        usual_anchor_ms=0.4,
        backends={},
        versions={},
        seed=0,
    )


class MadeUpProfiler:
    """Stands where a ProfilingWorker would."""

    def profile(self, architecture: Architecture, settings: ProfileSettings, **further: object) -> Profile:
        return made_up_profile(architecture, settings)


def measure_on_made_up_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would be measured in a process is made up instead, and no process starts."""
    monkeypatch.setattr(ProfilingWorker, "profile", MadeUpProfiler.profile)
