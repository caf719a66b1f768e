"""Measures the energy of decoding, by the device's counter and by readings of its power."""

from collections.abc import Callable
from math import isnan, nan
from time import perf_counter

from operators.base.errors import DeviceError
from profiler.device.device import Device
from profiler.energy import Energy


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


def _power(device: Device) -> float:
    """The device's power (W); NaN where the driver does not tell it."""
    try:
        return device.power_w()
    except DeviceError:
        return nan
