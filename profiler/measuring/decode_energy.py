"""Measures the energy of work, by the device's counter and by readings of its power."""

from collections.abc import Callable, Sequence
from math import isnan, nan
from time import perf_counter

from operators.base.errors import DeviceError
from profiler.device.device import Device
from profiler.energy import Energy
from profiler.profile import PointProfile
from profiler.vision_point import VisionPoint

# How long work goes on between two looks at the clock while its energy is measured (ms).
BURST_MS = 200.0


def decode_energy(
    burst: Callable[[], None],
    *,
    device: Device,
    seconds: float,
    tokens: int,
    clock: Callable[[], float] = perf_counter,
) -> Energy:
    """The energy of calling `burst` again and again for some time.

    One burst goes before the measurement. The counter lags by up to 100 ms, and it lags equally at the end
    and at the beginning if the load is the same at both.

    burst: decodes `tokens` tokens and returns when the device is done
    seconds: how long to call it (s)
    tokens: how many tokens one burst decodes
    clock: returns the time (s)
    """
    burst()
    bursts, started, before = 0, clock(), device.energy_j()
    at, power, integral = started, _power(device), 0.0
    while clock() - started < seconds:
        burst()
        bursts += 1
        now, next_power = clock(), _power(device)
        integral += (now - at) * (power + next_power) / 2
        at, power = now, next_power
    elapsed = clock() - started
    return Energy(
        energy_j=device.energy_j() - before,
        seconds=elapsed,
        tokens=bursts * tokens,
        integral_j=None if isnan(integral) else integral,
    )


def unlike_energies(points: Sequence[PointProfile] | Sequence[VisionPoint]) -> tuple[str, ...]:
    """A note for each point whose energy by the counter differs from that by the power."""
    return tuple(
        f"{point.energy.disagreement} at batch {point.batch}, context {point.context}"
        for point in points
        if point.energy and point.energy.disagreement
    )


def _power(device: Device) -> float:
    """The device's power (W); NaN where the driver does not tell it."""
    try:
        return device.power_w()
    except DeviceError:
        return nan
