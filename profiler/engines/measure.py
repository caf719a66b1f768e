"""Measures an architecture in the engine that a device is."""

from operators.architecture import Architecture
from profiler.device.device import Device
from profiler.device.names import LLAMA_CPP
from profiler.engines.in_transformers import measure_in_transformers
from profiler.engines.llama_cpp import measure_in_llama_cpp
from profiler.measuring.anchor import Anchor
from profiler.profile import Profile, ProfileSettings


def measure_in_engine(
    architecture: Architecture,
    settings: ProfileSettings,
    *,
    device: Device,
    backend: str = "auto",
    seed: int = 0,
    anchor: Anchor | None = None,
) -> Profile:
    """As `profiler.measuring.measure.measure`, in `device.engine`.

    Raises ArchitectureError where the engine does not hold the architecture, and BackendError where
    it refuses the file.
    """
    measure = measure_in_llama_cpp if device.engine == LLAMA_CPP else measure_in_transformers
    return measure(architecture, settings, device=device, backend=backend, seed=seed, anchor=anchor)
