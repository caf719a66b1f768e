"""The packages of the engines of others: whether they are installed, and their versions."""

import importlib.util
from importlib.metadata import version

from operators.base.errors import DeviceError
from profiler.device.names import LLAMA_CPP, TRANSFORMERS

# What an engine needs, by the name to import and to install.
PACKAGES = {LLAMA_CPP: ("xllamacpp", "gguf"), TRANSFORMERS: ("transformers",)}


def require_engine(engine: str) -> None:
    """Raises DeviceError where a package of the engine is not installed."""
    for package in PACKAGES[engine]:
        try:
            missing = importlib.util.find_spec(package) is None
        except ValueError:  # where tests say that it cannot be imported
            missing = True
        if missing:
            raise DeviceError(f"{engine}: needs the package {package} (`pip install {package}`)")


def engine_versions(engine: str) -> dict[str, str]:
    """Its packages with their versions, and what llama.cpp was built with; empty for our own runtime.

    llama.cpp's wheel for Linux is built for many processors, without what only some have. Its times may be
    longer than those of llama.cpp built for this machine.
    """
    versions = {package: version(package) for package in PACKAGES.get(engine, ())}
    if engine == LLAMA_CPP:
        import xllamacpp

        versions["llama.cpp"] = xllamacpp.get_system_info()
    return versions
