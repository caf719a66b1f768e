"""Finds benchmarks: the file name in `library/` is the benchmark's name."""

import importlib
import pkgutil
from datetime import datetime
from functools import cache
from pathlib import Path

from rich.console import Console

from operators.base.errors import ConfigError
from profiler.device.device import open_device
from search.benchmarks import library, record
from search.benchmarks.benchmark import Benchmark


@cache
def names() -> tuple[str, ...]:
    """Returns the names of all benchmarks, sorted; it imports none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(library.__path__)))


@cache
def get(name: str) -> Benchmark:
    """Returns the benchmark of that name and imports only its file.

    Raises ConfigError for an unknown name.
    """
    if name not in names():
        raise ConfigError(f"unknown benchmark {name!r}: expected one of {', '.join(names())}")
    benchmark: Benchmark = importlib.import_module(f"{library.__name__}.{name}").BENCHMARK
    return benchmark


def measure_and_write(name: str, *, device: str, out: Path | None, console: Console) -> Path:
    """Runs a benchmark and writes its record; returns the record's path.

    name: of the benchmark.
    device: cpu, cuda:N, or cuda for every GPU.
    out: the JSON file of the record; None is results/benchmarks/DEVICE/NAME.json.

    Raises ConfigError for an unknown name and where a package is missing.
    Raises DeviceError where the device is not there.
    """
    benchmark, opened = get(name), open_device(device)
    benchmark.require(opened)
    path = out or record.default_path(name, opened)
    if path.is_dir():
        raise ConfigError(f"--out {path}: expected a file, got a folder")
    started = datetime.now().astimezone()
    measured = benchmark.run(device, console)
    record.write(path, name, measured, device=opened, started=started)
    record.retire(measured.folders)
    return path
