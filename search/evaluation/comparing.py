"""`frontrunner compare`: measures whether one architecture is faster than another.

The measurements of both are interleaved, and each is made in a fresh process.
"""

from collections.abc import Callable

from operators import Architecture
from operators.base.errors import ConfigError, DeviceError
from profiler.device.device import open_device
from profiler.measuring.comparison import Comparison, compare_times
from profiler.process.worker import ProfilingWorker
from profiler.profile import REPEATABILITY, Profile, ProfileSettings, key
from search.evaluation.profiling import started

# Rounds of a comparison, unless the caller names another number.
ROUNDS = 6
# Fewer rounds do not show how far the times scatter.
LEAST_ROUNDS = 3
# Processes that start at the same time, before any of them measures.
AT_ONCE = 6
# After this time one measurement is given up.
DEADLINE_S = 600.0


def compare(
    a: Architecture,
    b: Architecture,
    settings: ProfileSettings,
    *,
    device: str,
    backend: str = "auto",
    rounds: int = ROUNDS,
    on_round: Callable[[int, float, float], None] = lambda number, a_ms, b_ms: None,
) -> Comparison:
    """Times a decode step of both architectures, `rounds` times, at the first batch size and context.

    Each time is taken in a process of its own, and the two take turns in going first. A round in which one of
    the two was tainted does not count and is made again, as often as there are rounds.

    a, b: the architectures.
    settings: how they are measured; the first batch size and context count.
    on_round: (number of the round, ms of A, ms of B).

    Raises what `ProfilingWorker.profile` raises, and ConfigError for fewer than LEAST_ROUNDS rounds.
    Raises DeviceError where fewer than LEAST_ROUNDS rounds count.
    """
    if rounds < LEAST_ROUNDS:
        raise ConfigError(f"rounds: expected at least {LEAST_ROUNDS}, got {rounds}")
    kind = open_device(device, engines=True).torch_device.type
    name = key("decode_ms", batch=settings.batch_sizes[0])
    times: tuple[list[float], list[float]] = ([], [])
    begun, reason = 0, ""
    while len(times[0]) < rounds and begun < 2 * rounds:
        chunk = range(begun, begun + min(AT_ONCE // 2, rounds - len(times[0]), 2 * rounds - begun))
        begun = chunk.stop
        with started(device, 2 * len(chunk)) as workers:
            free = iter(workers)
            for number in chunk:
                order = (0, 1) if number % 2 == 0 else (1, 0)
                pair = {side: _measured(next(free), (a, b)[side], settings, backend) for side in order}
                tainted = [why for profile in pair.values() if (why := profile.taints().get(name))]
                if tainted:
                    reason = tainted[0]
                    continue
                for side, profile in pair.items():
                    times[side].append(profile.points[0].decode.median_ms)
                on_round(len(times[0]), times[0][-1], times[1][-1])
    if len(times[0]) < LEAST_ROUNDS:
        raise DeviceError(
            f"device {device}: {len(times[0])} of {begun} rounds were measured well, "
            f"expected at least {LEAST_ROUNDS}: {reason}"
        )
    return compare_times(*times, indistinct=REPEATABILITY[kind])


def _measured(
    worker: ProfilingWorker, architecture: Architecture, settings: ProfileSettings, backend: str
) -> Profile:
    profile = worker.profile(architecture, settings, backend=backend, deadline_s=DEADLINE_S)
    worker.close()
    return profile
