"""What taints a measurement and what becomes of it, with a fake anchor, fake readings and a fake driver."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from operators.base.errors import DeviceError
from profiler.device import nvml
from profiler.device.device import open_device
from profiler.device.lock import members, shared
from profiler.device.nvml import Gpu, Reading
from profiler.measuring import conditions
from profiler.measuring.conditions import foreign_processes, watched
from profiler.timing import Timing

pytestmark = pytest.mark.usefixtures("own_locks")


def timing(ms: float) -> Timing:
    return Timing(
        median_ms=ms, iqr_ms=0, p90_ms=ms, n=5, stopped_by="precision", samples_ms=(ms,) * 5, runs=10
    )


class FakeAnchor:
    """Times what it is told, one after the other."""

    def __init__(self, *times_ms: float) -> None:
        self.times: Iterator[float] = iter(times_ms)

    def warm_up(self) -> None:
        pass

    def time(self) -> Timing:
        return timing(next(self.times))


class FakeDevice:
    """The CPU with readings of a GPU."""

    def __init__(self, *readings: Reading) -> None:
        real = open_device("cpu")
        self.label, self.torch_device, self.lock_key = real.label, real.torch_device, real.lock_key
        self.readings = iter(readings)

    def reading(self) -> Reading:
        return next(self.readings, Reading())


def measured(anchor: FakeAnchor, device: FakeDevice | None = None, **named: object) -> tuple[Any, Any, int]:
    """Results and conditions of a measurement whose results are numbered by attempt."""
    calls: list[int] = []

    def run() -> list[SimpleNamespace]:
        calls.append(len(calls))
        return [SimpleNamespace(number=calls[-1], device_s=2.0)]

    results, found = watched(
        run,
        anchor=anchor,
        device=device or FakeDevice(),
        attempts=3,
        pause=lambda seconds: None,
        **named,
    )  # type: ignore[arg-type, type-var]
    return [result.number for result in results], found, len(calls)


def test_a_quiet_device_is_measured_once() -> None:
    limit = conditions.MAX_DRIFT["cpu"]
    results, found, calls = measured(FakeAnchor(1.0, 1.0 + 0.9 * limit))
    assert (results, calls, found.attempts, found.tainted) == ([0], 1, 1, ())
    assert found.drift == pytest.approx(0.9 * limit / (1 + 0.45 * limit))
    assert found.anchor_ms == pytest.approx(1 + 0.45 * limit)
    assert found.busy_s == pytest.approx(
        2.0 + 5 * 10 * (2 + 0.9 * limit) / 1e3
    )  # 5 samples of 10 runs around two seconds


@pytest.mark.parametrize(
    ("counted", "remarks"),
    [
        ((1980.0, 1965.0), ()),
        (
            (1980.0, 1755.0),
            ("SM clock: 1980 MHz before and 1755 MHz after, expected a change of at most 1%",),
        ),
        (
            (1755.0, 1980.0),
            ("SM clock: 1755 MHz before and 1980 MHz after, expected a change of at most 1%",),
        ),
    ],
)
def test_a_clock_that_moved_is_remarked_and_taints_nothing(
    counted: tuple[float, float], remarks: tuple[str, ...]
) -> None:
    readings = iter(counted)
    _, found, calls = measured(FakeAnchor(1.0, 1.0), clock=lambda: next(readings))
    assert (found.sm_mhz_before, found.sm_mhz_after) == counted
    assert (found.remarks, found.tainted, calls) == (remarks, (), 1)


def test_a_core_that_became_slower_repeats_the_measurement() -> None:
    found = iter(["", "core: the same work took 60% longer", "core: the same work took 70% longer", ""])
    core = SimpleNamespace(held=lambda: nullcontext(lambda: next(found)))
    assert measured(FakeAnchor(1.0, 1.0), core=core)[1].tainted == ()
    results, conditions_found, calls = measured(FakeAnchor(*[1.0] * 6), core=core)
    assert (results, calls, conditions_found.tainted) == ([2], 3, ())


def test_a_cpu_says_that_the_clock_of_multiprocessors_is_not_known() -> None:
    _, found, _ = measured(FakeAnchor(1.0, 1.0))
    assert (found.sm_mhz_before, found.sm_mhz_after) == (None, None)
    assert "SM clock: needs a CUDA device, got cpu" in found.notes


def test_drift_repeats_the_measurement_and_only_the_last_counts() -> None:
    results, found, calls = measured(FakeAnchor(1.0, 2.0, 1.0, 1.0))
    assert (results, calls, found.attempts, found.tainted) == ([1], 2, 2, ())
    assert found.busy_s == pytest.approx(4.0 + 5 * 10 * 5 / 1e3)  # both attempts


AT_LIMIT = Reading(clock_reasons=("sw_power_cap",))


@pytest.mark.parametrize("behind", [[1.0], [2.0, 2.0, 1.0]])
def test_clocks_that_come_back_behind_a_load_at_the_limit_of_power_taint_nothing(behind: list[float]) -> None:
    anchor = FakeAnchor(1.0, 2.0, *behind)
    results, found, calls = measured(anchor, FakeDevice(Reading(), AT_LIMIT))
    assert (results, calls, found.drift, found.tainted) == ([0], 1, 0.0, ())
    assert found.anchor_after.median_ms == 1.0
    assert found.remarks == (
        "power: the anchor model took 66.7% longer just after a load at the GPU's power limit",
    )
    assert next(anchor.times, None) is None


def test_clocks_that_stay_low_behind_such_a_load_are_a_drift() -> None:
    _, found, calls = measured(FakeAnchor(*[1.0, *[2.0] * 4] * 3), FakeDevice(*[AT_LIMIT] * 6))
    assert calls == 3
    assert found.tainted[0].startswith("drift: the anchor model changed by 66.7%")


def test_a_limit_of_power_without_a_drift_is_not_waited_for() -> None:
    _, found, calls = measured(FakeAnchor(1.0, 1.0), FakeDevice(Reading(), AT_LIMIT))
    assert (found.remarks, calls) == ((), 1)


def test_after_three_attempts_it_is_reported_as_tainted() -> None:
    results, found, calls = measured(FakeAnchor(*[1.0, 2.0] * 3))
    assert (results, calls, found.attempts) == ([2], 3, 3)
    assert found.tainted == ("drift: the anchor model changed by 66.7%, expected at most 50%",)


def test_the_device_is_let_go_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real = conditions.exclusive

    class Recorded:
        def __init__(self, label: str) -> None:
            self.lock = real(label)

        def __enter__(self) -> None:
            events.append("in")
            self.lock.__enter__()

        def __exit__(self, *error: object) -> None:
            events.append("out")
            self.lock.__exit__(None, None, None)

    monkeypatch.setattr(conditions, "exclusive", Recorded)
    measured(FakeAnchor(1.0, 2.0, 1.0, 1.0))
    assert events == ["in", "out", "in", "out"]


@pytest.mark.parametrize(
    ("before", "after", "taint"),
    [
        (Reading(clock_reasons=("sw_power_cap",)), Reading(clock_reasons=("sw_power_cap", "gpu_idle")), None),
        (Reading(), Reading(clock_reasons=("hw_thermal_slowdown",)), "clocks held back: hw_thermal_slowdown"),
        (Reading(clock_reasons=("hw_slowdown",)), Reading(), "clocks held back: hw_slowdown"),
        (
            Reading(violations_ns={"thermal": 7, "power": 1}),
            Reading(violations_ns={"thermal": 7, "power": 9}),
            None,
        ),
        (
            Reading(violations_ns={"thermal": 7}),
            Reading(violations_ns={"thermal": 2_000_007}),
            "clocks held back: thermal limit for 2 ms",
        ),
        (Reading(violations_ns={"thermal": 7}), Reading(), None),
        (Reading(pids=(os.getpid(),)), Reading(pids=(os.getpid(),)), None),
        (
            Reading(pids=(os.getpid(),)),
            Reading(pids=(os.getpid(), 10**8)),
            "foreign processes on the device: 100000000",
        ),
        (Reading(pids=(4, 10**8)), Reading(pids=(4, 10**8)), None),
    ],
)
def test_what_taints(before: Reading, after: Reading, taint: str | None) -> None:
    _, found, calls = measured(FakeAnchor(*[1.0] * 6), FakeDevice(*[before, after] * 3))
    assert found.tainted == ((taint,) if taint else ())
    assert calls == (3 if taint else 1)


def test_processes_that_keep_to_the_locks_are_not_foreign() -> None:
    readings = (Reading(pids=(10, 20)), Reading(pids=(10, 30, 40)))
    assert foreign_processes(readings, own=10, known=frozenset({30})) == ((20, 40), ())
    found, notes = foreign_processes(readings, own=11, known=frozenset())
    assert found == ()
    assert "lists 4 processes and not this one" in notes[0]
    assert foreign_processes((Reading(), Reading()), own=1, known=frozenset()) == ((), ())


def test_a_server_of_mps_is_not_foreign_and_its_clients_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an H200 listed them: the server and each client by a process id of its own."""
    reading = Reading(pids=(os.getpid(), 11661))
    monkeypatch.setattr(conditions, "is_server", lambda pid: pid == 11661)
    _, found, calls = measured(FakeAnchor(1.0, 1.0), FakeDevice(reading, reading))
    assert (found.tainted, found.foreign_pids, calls) == ((), (), 1)
    assert found.remarks[0].startswith("MPS: a server")
    client = Reading(pids=(os.getpid(), 11661, 12134))
    _, found, calls = measured(FakeAnchor(*[1.0] * 6), FakeDevice(*[client] * 6))
    assert (found.tainted, calls) == (("foreign processes on the device: 12134",), 3)


def test_members_are_the_living_that_have_asked_for_a_lock() -> None:
    cpu = open_device("cpu")
    assert members(cpu) == frozenset()
    child = os.fork()
    if child == 0:
        with shared("cpu"):
            os._exit(0)
    os.waitpid(child, 0)
    with shared("cpu"):
        assert members(cpu) == {os.getpid()}
    assert members(cpu) == {os.getpid()}


def answer(value: object):  # type: ignore[no-untyped-def]
    return lambda *arguments: value


def refuse(error: Exception):  # type: ignore[no-untyped-def]
    def raising(*arguments: object) -> None:
        raise error

    return raising


def test_a_missing_driver_library_is_said_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        nvml.pynvml, "nvmlInit", refuse(pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    )
    assert Gpu("GPU-1").reading() == Reading(unavailable={"nvml": "NVML Shared Library Not Found"})


def test_what_the_driver_says_is_read_and_what_it_does_not_support_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsupported = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    mask = pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    violations = {pynvml.NVML_PERF_POLICY_THERMAL: 70, pynvml.NVML_PERF_POLICY_POWER: 50}

    def violation(handle: object, policy: int) -> SimpleNamespace:
        if policy not in violations:
            raise unsupported
        return SimpleNamespace(violationTime=violations[policy])

    for name, function in {
        "nvmlInit": answer(None),
        "nvmlDeviceGetHandleByUUID": answer("handle"),
        "nvmlDeviceGetCurrentClocksEventReasons": answer(mask),
        "nvmlDeviceGetComputeRunningProcesses": answer(
            [SimpleNamespace(pid=7), SimpleNamespace(pid=3), SimpleNamespace(pid=7)]
        ),
        "nvmlDeviceGetViolationStatus": violation,
        "nvmlDeviceGetClockInfo": lambda handle, kind: {
            pynvml.NVML_CLOCK_SM: 1980,
            pynvml.NVML_CLOCK_MEM: 2619,
        }[kind],
        "nvmlDeviceGetTemperature": refuse(unsupported),
        "nvmlDeviceGetTotalEnergyConsumption": answer(12_345),
        "nvmlDeviceGetUtilizationRates": answer(SimpleNamespace(gpu=85, memory=20)),
    }.items():
        monkeypatch.setattr(nvml.pynvml, name, function)
    found = Gpu("GPU-1").reading()
    assert (found.sm_clock_mhz, found.memory_clock_mhz, found.temperature_c) == (1980, 2619, None)
    assert found.clock_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert found.violations_ns == {"power": 50, "thermal": 70}
    assert found.pids == (3, 7)
    assert found.unavailable["temperature_c"] == "Not Supported"
    assert set(found.unavailable) == {"temperature_c"} | {
        f"violations_ns.{name}" for name in ("sync_boost", "board_limit", "low_utilization", "reliability")
    }
    assert Gpu("GPU-1").energy_j() == 12.345
    assert Gpu("GPU-1").busy_share() == 0.85


@pytest.mark.parametrize(
    ("field", "mean", "right"),
    [(SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=612_500)), 1, 612.5),
     (SimpleNamespace(nvmlReturn=pynvml.NVML_ERROR_NOT_SUPPORTED, value=None), 431_000, 431.0)],
    ids=["now", "mean"],
)  # fmt: skip
def test_power_is_that_of_the_moment_where_the_driver_has_it(monkeypatch, field, mean, right) -> None:
    asked: list[object] = []
    for name, function in {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: "handle",
        "nvmlDeviceGetFieldValues": lambda handle, fields: asked.extend(fields) or [field],
        "nvmlDeviceGetPowerUsage": lambda handle: mean,
    }.items():
        monkeypatch.setattr(nvml.pynvml, name, function)
    assert Gpu("GPU-1").power_w() == right
    assert asked == [186]  # NVML_FI_DEV_POWER_INSTANT of nvml.h


def test_nothing_is_measured_on_a_gpu_that_a_profiler_watches(monkeypatch) -> None:
    def refuse() -> None:
        raise DeviceError("a profiler makes every kernel slower")

    monkeypatch.setattr(conditions, "refuse_observed", refuse)
    assert measured(FakeAnchor(1.0, 1.0))[1].tainted == ()  # on a CPU it changes nothing
    gpu = FakeDevice()
    gpu.torch_device = torch.device("cuda")
    with pytest.raises(DeviceError, match="a profiler"):
        measured(FakeAnchor(), gpu)


def test_an_unstable_result_is_measured_again() -> None:
    results, found, calls = measured(
        FakeAnchor(*[1.0] * 6),
        unstable=lambda result: result.number < 1,  # type: ignore[attr-defined]
    )
    assert (results, calls, found.tainted) == ([1], 2, ())


def test_another_pace_than_the_machines_taints() -> None:
    assert measured(FakeAnchor(1.9, 1.9), usual_ms=1.0)[1].tainted == ()
    for anchor_ms in (2.2, 0.4):
        _, found, calls = measured(FakeAnchor(*[anchor_ms] * 6), usual_ms=1.0)
        assert calls == 3
        assert found.tainted == (
            f"pace: the anchor model took {anchor_ms} ms, 1 ms when this machine was first "
            "measured; expected within a factor of 2",
        )


@pytest.mark.parametrize(
    ("share", "reason"), [(None, ""), (0.95, ""), (0.67, "other programs had it for 33%")]
)
def test_a_core_that_others_had_taints(share: float | None, reason: str) -> None:
    assert reason in conditions.lost_core(share)
    assert bool(conditions.lost_core(share)) == bool(reason)
