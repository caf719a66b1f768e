"""What a benchmark is, and what it returns."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from operators.base.errors import ConfigError, DeviceError
from profiler.device.device import Device

Figures = dict[str, float | int | str]


@dataclass(frozen=True)
class Measured:
    """What a benchmark returns.

    figures: flat, with units in the names.
    samples: what the figures were computed from, as JSON can hold it.
    files: suffix -> content of a file that is kept beside the record.
    folders: runs in which an interrupted benchmark continues; they are renamed once the record is written.
    """

    figures: Figures
    samples: Any
    files: Mapping[str, bytes] = field(default_factory=dict)
    folders: Sequence[Path] = ()


@dataclass(frozen=True)
class Benchmark:
    """Something that `frontrunner bench` can measure.

    name: that of its file in `library/`.
    summary: what is measured, in one line.
    run: (device, console) -> what was measured; prints results as they come.
    needs: packages that Frontrunner does not install itself: name to import -> command that installs it.
    gpu: whether it cannot run on a CPU.
    """

    name: str
    summary: str
    run: Callable[[str, Console], Measured]
    needs: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False

    def require(self, device: Device) -> None:
        """Checks that the benchmark can run on the device.

        Raises ConfigError where a package is missing, and DeviceError where it needs a GPU and the device is
        none.
        """
        if missing := [name for name in self.needs if importlib.util.find_spec(name) is None]:
            commands = " and ".join(
                f"`{command}`" for command in dict.fromkeys(self.needs[name] for name in missing)
            )
            raise ConfigError(
                f"bench {self.name}: {', '.join(missing)} missing; {commands} installs what it needs"
            )
        if self.gpu and device.torch_device.type != "cuda":
            raise DeviceError(f"bench {self.name}: expected a GPU, as in --device cuda:0, got {device.label}")
