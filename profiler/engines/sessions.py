"""A profile from an engine of others: its models are timed as ours are, between timings of the anchor model.

Prefill and decode mean what they mean in `profiler.measuring.measure`. An engine does not set its state back
after a step, so a sample of decoding is the time of some steps in a row, with the context in the middle.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from operators.base.errors import DeviceError
from operators.cost import Cost
from profiler.device.ceilings import DATASHEET_BYTES_PER_S, copy_bytes_per_s
from profiler.device.device import Device
from profiler.measuring.anchor import Anchor
from profiler.measuring.conditions import unsteady, watched
from profiler.measuring.pace import Pace
from profiler.profile import PointProfile, Profile, ProfileSettings
from profiler.timing import sample

STEPS = 32  # of a sample of decoding: enough for one to be worth its prefill, and few beside most contexts
LEAST_STEPS = 4


@dataclass(frozen=True)
class Session:
    """A model in an engine, ready for one batch size and context, warmed up.

    batch: rows decoded at once
    context: tokens a row
    memory_bytes: what loading and running it took at most: weights, state and temporaries
    cost: by arithmetic, of the model as the engine holds it
    prefill_ms: reads the context in every row, up to the choice of the next token, and returns the time (ms)
    decode: decodes tokens, with the context in the middle; returns the time of a step, their mean or median
        (ms), and the number of steps
    """

    batch: int
    context: int
    memory_bytes: int
    cost: Cost
    prefill_ms: Callable[[], float]
    decode: Callable[[], tuple[float, int]]


def steps_around(context: int) -> tuple[int, int]:
    """The tokens of a prompt, and how many steps follow it, for a mean of `context` tokens."""
    steps = max(LEAST_STEPS, min(STEPS, 2 * (context - 1)))
    return max(1, context - steps // 2), steps


def with_zeros(own: Cost, zeros: int) -> Cost:
    """The costs of a model that an engine gives more weights, all of them zeros.

    own: of the model without them
    zeros: their bytes, which every decode step reads
    """
    return replace(own, param_bytes=own.param_bytes + zeros, decode_bytes=own.decode_bytes + zeros)


def without_what_is_ours(settings: ProfileSettings, backend: str, device: Device) -> dict[str, str]:
    """What the settings ask for and an engine does not measure, by metric, with the reason.

    Raises DeviceError where a backend of our operators was named.
    """
    if backend != "auto":
        raise DeviceError(
            f"device {device.label}: expected backend auto, as it runs none of our operators, got {backend}"
        )
    energy = ("energy_j_per_token", "power_w") if settings.energy_seconds else ()
    largest = ("largest_batch", "throughput_tokens_per_s") if settings.largest_batch else ()
    return dict.fromkeys((*energy, *largest), f"not measured in {device.engine}")


def profile_of(
    sessions: Sequence[Session],
    settings: ProfileSettings,
    *,
    device: Device,
    anchor: Anchor,
    params: int,
    dtype: str,
    how: Mapping[str, str],
    absent: Mapping[str, str],
    seed: int,
    core_share: Callable[[], Callable[[], float | None]] | None = None,
) -> Profile:
    """Measures the sessions with the device locked. The caller holds none of its locks.

    anchor: of the device
    params: number of parameters
    dtype: of weights in the engine
    how: what the engine ran the model with; the profile's `backends`
    absent: what the settings asked for and is not measured, with the reason
    core_share: see `watched`
    """
    on_cpu, pace = device.torch_device.type == "cpu", Pace(anchor)

    def measured(session: Session) -> PointProfile:
        _, steps = session.decode()
        return PointProfile(
            batch=session.batch,
            context=session.context,
            prefill=sample(pace.beside(session.prefill_ms), settings=settings.of_prefill(), lasting=on_cpu),
            decode=sample(
                pace.beside(lambda: session.decode()[0]), settings=settings, runs=steps, lasting=on_cpu
            ),
            peak_memory_bytes=session.memory_bytes,
            kv_bytes=session.cost.kv_bytes,
            recurrent_bytes=session.cost.recurrent_bytes,
            decode_bytes=session.cost.decode_bytes,
        )

    points, conditions = watched(
        lambda: [measured(session) for session in sessions],
        anchor=anchor,
        device=device,
        attempts=settings.attempts,
        usual_ms=pace.usual_ms,
        unstable=lambda point: on_cpu and unsteady(point, counts_prefill=not settings.brief_prefill),
        share=core_share,
    )
    return Profile(
        device=device.label,
        device_name=device.name,
        dtype=dtype,
        threads=settings.threads,
        contexts=settings.contexts,
        params=params,
        param_bytes=sessions[0].cost.param_bytes,
        points=points,
        absent=absent,
        copy_bytes_per_s=copy_bytes_per_s(device),
        datasheet_bytes_per_s=DATASHEET_BYTES_PER_S.get(device.name),
        conditions=conditions,
        usual_anchor_ms=pace.usual_ms,
        backends=how,
        versions=device.versions(),
        seed=seed,
    )
