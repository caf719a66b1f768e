"""What a device's name says before the device is opened.

A device is `cpu`, `cuda` (the first GPU) or `cuda:N`: there our own runtime computes. An engine of others is
a device too, on which models are measured and never trained: `llama.cpp` on the CPU, `transformers` on the
CPU, and `transformers/cuda:N`.
"""

import re

from operators.base.errors import DeviceError

LLAMA_CPP, TRANSFORMERS = "llama.cpp", "transformers"
OWN = "cpu, cuda or cuda:N"
# Each with the devices on which it measures.
ENGINES = {LLAMA_CPP: "cpu", TRANSFORMERS: OWN}


def engine_of(name: str) -> str:
    """The engine in a device's name; empty for our own runtime."""
    engine = name.partition("/")[0]
    return engine if engine in ENGINES else ""


def computes_on(name: str) -> str:
    """The device of our own on which the device of that name computes, as `cpu` for `llama.cpp`."""
    return (name.partition("/")[2] or "cpu") if engine_of(name) else name


def engine_on(engine: str, device: str) -> str:
    """The name of an engine on a device of our own. Raises DeviceError where it does not measure there."""
    if engine not in ENGINES:
        raise DeviceError(f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}")
    on_gpu = ENGINES[engine] == OWN and re.fullmatch(r"cuda(:\d+)?", device)
    if device != "cpu" and not on_gpu:
        raise DeviceError(f"engine {engine}: expected device {ENGINES[engine]}, got {device}")
    return engine if device == "cpu" else f"{engine}/{device}"
