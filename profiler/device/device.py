"""The one place that knows devices: time, memory and identity of a CPU or a GPU.

The rest of the program works with devices through the interface `Device`. `profiler/device/nvml.py`, which
asks the driver, is used here only.
"""

import os
import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from typing import Any

import torch

from operators.base.errors import DeviceError
from operators.base.freed_memory import give_back_freed_memory, keep_freed_memory
from profiler.device.names import ENGINES, OWN, computes_on, engine_of, engine_on
from profiler.device.nvml import Gpu, Reading, driver_version
from profiler.engines.packages import engine_versions, require_engine

_KERNEL_PACKAGES = ("triton", "flash-attn", "flash-linear-attention", "mamba-ssm", "causal-conv1d")


class Device(ABC):
    """A device that can be measured.

    label: how it was asked for, as `cpu`, `cuda:0` or `llama.cpp`
    engine: of others, which runs the models, as `llama.cpp`; empty for our own runtime
    torch_device: the device that tensors are placed on
    name: for people
    lock_key: differs from that of every other device of the machine
    dtype: number format of inference there
    """

    label: str
    engine: str = ""
    torch_device: torch.device
    name: str
    lock_key: str
    dtype: torch.dtype

    @abstractmethod
    def synchronize(self) -> None:
        """Returns when everything that was queued has been done."""

    @abstractmethod
    def timed(self, run: Callable[[], Any]) -> float:
        """Elapsed time of one call, from an idle device until its work is done (ms)."""

    @abstractmethod
    def mean_time(self, run: Callable[[], Any], *, before: Callable[[], Any], count: int) -> float:
        """Mean elapsed time of successive calls, as in decoding (ms).

        run: is timed
        before: called before each call of `run`
        count: how many calls of `run` are made
        """

    @abstractmethod
    def peak_memory(self, run: Callable[[], Any]) -> int:
        """The most bytes that one call had allocated at any moment, on top of those allocated before it.

        What a call keeps, such as a returned tensor, counts. Weights, state and inputs that exist already do
        not.
        """

    @abstractmethod
    def free_memory(self) -> int:
        """Bytes that this process could still allocate."""

    @abstractmethod
    def release_memory(self) -> None:
        """Gives back what this process keeps for later allocations."""

    @abstractmethod
    def reading(self) -> Reading:
        """Clocks, temperature, limits and processes at this moment, as far as the device reports them.

        It never raises.
        """

    @abstractmethod
    def energy_j(self) -> float:
        """A counter of the energy that the device has used (J).

        Raises DeviceError where the device has none.
        """

    @abstractmethod
    def power_w(self) -> float:
        """Power at this moment (W). Raises DeviceError where the device does not tell it."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the software that the figures depend on.

        They are python, torch and frontrunner; on a GPU also the driver and the kernel libraries; and those
        of the engine.
        """

    def describe(self) -> dict[str, str]:
        """The device in a report: its label, its name and `versions`."""
        return {"device": self.label, "name": self.name, **self.versions()}


def open_device(name: str, *, engines: bool = False) -> Device:
    """The device called `cpu`, `cuda` (the first GPU) or `cuda:N`.

    From now on the process keeps the memory that it frees, see `operators.base.freed_memory`.

    engines: whether it may be an engine of others, see `profiler.device.names`

    Raises DeviceError for another name, an absent GPU, or an engine that is not installed.
    """
    engine, own = engine_of(name), computes_on(name)
    if engine and not engines:
        raise DeviceError(
            f"device {name}: {engine} is an engine of others, which only measures whole models; "
            f"expected {OWN}"
        )
    if engine and engine_on(engine, own) != name:
        raise DeviceError(f"unknown device {name!r}: expected {engine_on(engine, own)}")
    device = _own(own, or_engine=engines)
    keep_freed_memory()
    if engine:
        require_engine(engine)
        device.label, device.engine = name, engine
    return device


def _own(name: str, *, or_engine: bool) -> Device:
    if name == "cpu":
        return _Cpu()
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        engines = f", or an engine: {', '.join(ENGINES)}" if or_engine else ""
        raise DeviceError(f"unknown device {name!r}: expected {OWN}{engines}")
    if not torch.cuda.is_available():
        raise DeviceError(f"device {name}: no GPU can be used here: {_reason_without_gpu()}")
    index, count = int(match[1] or 0), torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            f"device {name}: this machine has {count} GPUs, expected a number from 0 to {count - 1}"
        )
    return _Cuda(index)


def inference_dtype(name: str) -> torch.dtype:
    """The number format of inference on the device of that name, which may be another machine's.

    An engine of others may have another one: `llama.cpp` has that of `profile.quantization`.

    Raises DeviceError for a name that is none.
    """
    own = computes_on(name)
    if own != "cpu" and re.fullmatch(r"cuda(?::(\d+))?", own) is None:
        raise DeviceError(f"unknown device {name!r}: expected {OWN}")
    return _Cpu.dtype if own == "cpu" else _Cuda.dtype


class _Cpu(Device):
    label = "cpu"
    torch_device = torch.device("cpu")
    lock_key = "cpu"
    dtype = torch.float32

    def __init__(self) -> None:
        self.name = _cpu_name()

    def synchronize(self) -> None:
        # Operators on the CPU return when they are done.
        pass

    def timed(self, run: Callable[[], Any]) -> float:
        """As the interface says, with one thread by its own processor time.

        The processor time stands still while another process has the core. The work timed here computes and
        never waits, so that both clocks agree on a free core. Several threads wait for one another: only the
        wall clock shows when they are done.
        """
        now = thread_time_ns if torch.get_num_threads() == 1 else perf_counter_ns
        start = now()
        run()
        return (now() - start) / 1e6

    def mean_time(self, run: Callable[[], Any], *, before: Callable[[], Any], count: int) -> float:
        """As the interface says; `before` is not timed."""
        total = 0.0
        for _ in range(count):
            before()
            total += self.timed(run)
        return total / count

    def peak_memory(self, run: Callable[[], Any]) -> int:
        """As the interface says, from every allocation of PyTorch's CPU allocator.

        Temporaries inside its operators count. What math libraries and the interpreter allocate by themselves
        does not. The process's resident set would include that, but also every page touched earlier, so that
        it never repeats.
        """
        # The profiler writes lines to stderr at each start and stop, unless this is set before its first use.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        with torch.autograd.profiler.profile(profile_memory=True) as profile:
            kept = run()
        result = profile.kineto_results
        if result is None:
            raise DeviceError("device cpu: PyTorch's profiler gave no record of the memory")
        del kept
        events = [
            (event.start_ns(), event.nbytes()) for event in result.events() if event.name() == "[memory]"
        ]
        live = peak = 0
        for _, change in sorted(events, key=lambda event: event[0]):
            live += change
            peak = max(peak, live)
        return peak

    def free_memory(self) -> int:
        """What Linux calls available, which includes caches that would make way; elsewhere the free pages."""
        try:
            found = re.search(
                r"^MemAvailable:\s*(\d+) kB$", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE
            )
        except OSError:
            found = None
        return int(found[1]) * 1024 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def release_memory(self) -> None:
        give_back_freed_memory()

    def reading(self) -> Reading:
        return Reading(unavailable={"nvml": "a CPU has no NVML"})

    def energy_j(self) -> float:
        raise DeviceError("device cpu: energy is read from a GPU's counter, a CPU has none here")

    def power_w(self) -> float:
        raise DeviceError("device cpu: power is read from a GPU's driver, a CPU has none here")

    def versions(self) -> dict[str, str]:
        return {**_versions(), **engine_versions(self.engine)}


class _Cuda(Device):
    dtype = torch.bfloat16

    def __init__(self, index: int) -> None:
        self.label = f"cuda:{index}"
        self.torch_device = torch.device("cuda", index)
        properties = torch.cuda.get_device_properties(index)
        self.name = properties.name
        # The index depends on CUDA_VISIBLE_DEVICES, which differs between processes; the UUID does not.
        self.lock_key = f"gpu-{properties.uuid}"
        self._gpu = Gpu(f"GPU-{properties.uuid}")

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def timed(self, run: Callable[[], Any]) -> float:
        self.synchronize()
        return self._between_events(run)

    def mean_time(self, run: Callable[[], Any], *, before: Callable[[], Any], count: int) -> float:
        """As the interface says, from events around all calls.

        What `before` queues is timed with them. One more pair of calls precedes the first event, so that the
        device is busy while the host queues the rest.
        """

        def calls(times: int) -> None:
            for _ in range(times):
                before()
                run()

        calls(1)
        return self._between_events(lambda: calls(count)) / count

    def _between_events(self, run: Callable[[], Any]) -> float:
        with torch.cuda.device(self.torch_device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            return float(start.elapsed_time(end))

    def peak_memory(self, run: Callable[[], Any]) -> int:
        """As the interface says, of PyTorch's allocator on this GPU."""
        self.synchronize()
        before = torch.cuda.memory_allocated(self.torch_device)
        torch.cuda.reset_peak_memory_stats(self.torch_device)
        run()
        self.synchronize()
        return torch.cuda.max_memory_allocated(self.torch_device) - before

    def free_memory(self) -> int:
        """As the interface says, without the gaps between tensors, into which nothing large fits."""
        free, _ = torch.cuda.mem_get_info(self.torch_device)
        kept = torch.cuda.memory_stats(self.torch_device)
        taken, gaps = (
            kept.get("allocated_bytes.all.current", 0),
            kept.get("inactive_split_bytes.all.current", 0),
        )
        return int(free + kept.get("reserved_bytes.all.current", 0) - taken - gaps)

    def release_memory(self) -> None:
        self.synchronize()
        torch.cuda.empty_cache()

    def reading(self) -> Reading:
        return self._gpu.reading()

    def energy_j(self) -> float:
        return self._gpu.energy_j()

    def power_w(self) -> float:
        return self._gpu.power_w()

    def versions(self) -> dict[str, str]:
        try:
            driver = driver_version()
        except DeviceError as error:
            driver = f"unknown: {error}"
        return {
            **_versions(),
            **engine_versions(self.engine),
            **_installed(_KERNEL_PACKAGES),
            "cuda": str(torch.version.cuda),
            "driver": driver,
        }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "frontrunner": version("frontrunner"),
    }


def _installed(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cpu_name() -> str:
    """The model's name where Linux gives it, otherwise the kind of processor."""
    try:
        found = re.search(
            r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _reason_without_gpu() -> str:
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} was built without CUDA"
    try:
        return f"PyTorch for CUDA {torch.version.cuda} does not accept driver {driver_version()} or its GPUs"
    except DeviceError as error:
        return str(error)
