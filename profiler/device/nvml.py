"""What the driver reports of a GPU, through NVML.

Missing answers come with their reason, so that measuring goes on without them.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import pynvml

from operators.base.errors import DeviceError
from operators.base.value import Value

_ERRORS = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError)
_CLOCK_REASONS: dict[str, int] = {
    "gpu_idle": pynvml.nvmlClocksEventReasonGpuIdle,
    "applications_clocks_setting": pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    "sw_power_cap": pynvml.nvmlClocksEventReasonSwPowerCap,
    "hw_slowdown": pynvml.nvmlClocksEventReasonHwSlowdown,
    "sync_boost": pynvml.nvmlClocksEventReasonSyncBoost,
    "sw_thermal_slowdown": pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    "hw_thermal_slowdown": pynvml.nvmlClocksEventReasonHwThermalSlowdown,
    "hw_power_brake_slowdown": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown,
    "display_clock_setting": pynvml.nvmlClocksEventReasonDisplayClockSetting,
}
_VIOLATIONS: dict[str, int] = {
    "power": pynvml.NVML_PERF_POLICY_POWER,
    "thermal": pynvml.NVML_PERF_POLICY_THERMAL,
    "sync_boost": pynvml.NVML_PERF_POLICY_SYNC_BOOST,
    "board_limit": pynvml.NVML_PERF_POLICY_BOARD_LIMIT,
    "low_utilization": pynvml.NVML_PERF_POLICY_LOW_UTILIZATION,
    "reliability": pynvml.NVML_PERF_POLICY_RELIABILITY,
}


class Reading(Value):
    """A device at one moment.

    What could not be read is None or absent.

    sm_clock_mhz: clock of the multiprocessors (MHz)
    memory_clock_mhz: clock of the memory (MHz)
    temperature_c: temperature of the GPU (°C)
    clock_reasons: why the clocks are not higher, by NVML's names
    violations_ns: for how long each policy has held the performance down so far (ns)
    pids: the processes that compute on it, as the driver numbers them
    unavailable: by name, why a value could not be read
    """

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    clock_reasons: tuple[str, ...] = ()
    violations_ns: Mapping[str, int] = {}
    pids: tuple[int, ...] | None = None
    unavailable: Mapping[str, str] = {}


class Gpu:
    """The GPU with this UUID, as in `GPU-8a1…`."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid

    @cached_property
    def _handle(self) -> Any:
        # NVML stays open until the process ends.
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(self._uuid)

    def reading(self) -> Reading:
        """The GPU at this moment; it never raises for what the driver cannot report."""
        try:
            handle = self._handle
        except _ERRORS as error:
            return Reading(unavailable={"nvml": str(error)})
        unavailable: dict[str, str] = {}

        def read(name: str, get: Callable[[], Any]) -> Any:
            try:
                return get()
            except _ERRORS as error:
                unavailable[name] = str(error)
                return None

        reasons = read("clock_reasons", lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)) or 0
        processes = read("pids", lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
        violations = {
            name: read(
                f"violations_ns.{name}",
                partial(_violation_ns, handle, policy),
            )
            for name, policy in _VIOLATIONS.items()
        }
        return Reading(
            sm_clock_mhz=read(
                "sm_clock_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
            ),
            memory_clock_mhz=read(
                "memory_clock_mhz", lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
            ),
            temperature_c=read(
                "temperature_c", lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
            ),
            clock_reasons=tuple(name for name, bit in _CLOCK_REASONS.items() if reasons & bit),
            violations_ns={name: value for name, value in violations.items() if value is not None},
            pids=None if processes is None else tuple(sorted({process.pid for process in processes})),
            unavailable=unavailable,
        )

    def energy_j(self) -> float:
        """Energy used since the driver was loaded (J); the counter moves every 20 to 100 ms.

        Raises DeviceError with the reason where it cannot be read.
        """
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except _ERRORS as error:
            raise DeviceError(f"NVML: {error}") from None

    def power_w(self) -> float:
        """Power at this moment (W), as the driver last measured it.

        Raises DeviceError with the reason where it cannot be read.
        """
        try:
            field = pynvml.nvmlDeviceGetFieldValues(self._handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])[0]
            if field.nvmlReturn == pynvml.NVML_SUCCESS:
                return float(field.value.uiVal) / 1e3
            # An older GPU or driver has only a mean, on some over the last second.
            return float(pynvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3
        except _ERRORS as error:
            raise DeviceError(f"NVML: {error}") from None

    def busy_share(self) -> float:
        """The share of the driver's last sample in which a kernel ran, 0 to 1. A sample takes 1/6 to 1 s.

        Raises DeviceError with the reason where it cannot be read.
        """
        try:
            return float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100
        except _ERRORS as error:
            raise DeviceError(f"NVML: {error}") from None


def driver_version() -> str:
    """Version of the NVIDIA driver.

    Raises DeviceError with the reason where there is none.
    """
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except _ERRORS as error:
        raise DeviceError(f"NVML: {error}") from None


def _violation_ns(handle: Any, policy: int) -> int:
    return int(pynvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime)
