"""Kernel libraries: when they can be used, where their compiled kernels are kept, and which tuning choices they may try.

The first time it meets a shape, Triton compiles and times every configuration that a library lists for a kernel, one after the other:
minutes for one operator. So results and binaries go to one folder for all processes, and `tuned/` names the configurations that won.
"""

import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

HALF = (torch.bfloat16, torch.float16)
# Package -> distribution. Their top level imports models of theirs, and with them transformers, for seconds.
_HEAVY = {"fla": "flash-linear-attention", "mamba_ssm": "mamba-ssm"}
VERSIONED = ("torch", "triton", "flash-linear-attention", "mamba-ssm")
# Set to 1 to let the libraries try all their configurations, as when measuring what belongs into `tuned/`.
FULL_TUNING = "FRONTRUNNER_FULL_TUNING"


@cache  # what is found does not change, and looking through a library's kernels takes a moment
def load(module: str) -> Any:
    """Imports a module of a kernel library, with its kernels' cache and tuning choices set up. Raises ImportError."""
    use_kernel_cache()
    library = module.partition(".")[0]
    _lighten(library)
    found = importlib.import_module(module)
    narrow(library)
    return found


def _lighten(library: str) -> None:
    """Lets submodules of a library be imported without what its top level imports."""
    if library in sys.modules or library not in _HEAVY:
        return
    spec = importlib.util.find_spec(library)
    if spec is not None:
        package = importlib.util.module_from_spec(spec)
        with suppress(PackageNotFoundError):
            package.__version__ = version(_HEAVY[library])  # type: ignore[attr-defined]
        sys.modules[library] = package


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a CUDA library that computes in 16 bits cannot serve this device and dtype, or None."""
    if device.type != "cuda":
        return f"needs a CUDA device, got {device}"
    if dtype not in HALF:
        return f"needs {' or '.join(_plain(known) for known in HALF)}, got {_plain(dtype)}"
    return None


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def cache_folder() -> Path:
    """Where compiled kernels of this GPU and these versions are kept, unless TRITON_CACHE_DIR says otherwise."""
    words = [torch.cuda.get_device_name() if torch.cuda.is_available() else "none"]
    for name in VERSIONED:
        try:
            words.append(f"{name}-{version(name)}")
        except PackageNotFoundError:
            continue
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "frontrunner" / "kernels" / re.sub(r"[^A-Za-z0-9.+_-]+", "-", "_".join(words))


def use_kernel_cache() -> None:
    """Makes Triton keep binaries and tuning results in `cache_folder()`, where the user has not chosen otherwise and there is a GPU."""
    if torch.cuda.is_available():
        os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder()))
        os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside, backward passes add up in a fixed order where PyTorch and the kernel libraries can; what was set before is restored.

    Atomic additions come in another order each time, and a training of thousands of steps ends a hundredth of a nat away. mamba_ssm's
    selective scan, which operator mamba takes, has no other way.
    """
    # Without it PyTorch warns of every product; on Hopper it is what it takes anyway.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # nothing here reads what it has not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filling


@cache
def tuned(architecture: str) -> dict[str, list[dict[str, Any]]]:
    """Per kernel the configurations worth trying on GPUs of an architecture such as `sm_90`; empty where nothing was measured."""
    path = Path(__file__).parent / "tuned" / f"{architecture}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["kernels"]) if path.exists() else {}


def narrow(library: str) -> None:
    """Leaves the kernels of an imported library those of their configurations that `tuned` names; others keep all of theirs."""
    if not torch.cuda.is_available():
        return
    major, minor = torch.cuda.get_device_capability()
    chosen = {} if os.environ.get(FULL_TUNING) == "1" else tuned(f"sm_{major}{minor}")
    for name, autotuner in autotuners(library):
        kept = [config for config in autotuner.configs if described(config) in chosen.get(name, ())]
        if kept:
            autotuner.configs = kept
        autotuner.do_bench = _brief_bench
        if any(config.pre_hook for config in autotuner.configs) and hasattr(
            autotuner, "check_disk_cache"
        ):  # since Triton 3.4
            autotuner.check_disk_cache = partial(_check_disk_cache, autotuner)


def _brief_bench(call: Callable[[], Any], quantiles: Sequence[float]) -> Any:
    """Times a kernel for some 25 ms, where Triton takes 125: hundreds of runs are enough to choose by."""
    return importlib.import_module("triton.testing").do_bench(call, warmup=5, rep=20, quantiles=quantiles)


def _check_disk_cache(autotuner: Any, key: Any, configs: Sequence[Any], tune: Callable[[], None]) -> bool:
    """Triton's own, for configurations with a function to call before the kernel, as those of Mamba2's backward pass have.

    Functions cannot be written to a file, so that Triton would tune such kernels in every process anew; and another choice adds up in
    another order: the same training, another loss.
    """
    plain = {str(config): copy(config) for config in configs}
    for config in plain.values():
        config.pre_hook = None

    def tune_plainly() -> None:
        tune()
        autotuner.configs_timings = {
            plain[str(config)]: timings for config, timings in autotuner.configs_timings.items()
        }

    found: bool = type(autotuner).check_disk_cache(autotuner, key, list(plain.values()), tune_plainly)
    chosen = str(autotuner.cache[key])
    autotuner.cache[key] = next(config for config in configs if str(config) == chosen)
    return found


def described(config: Any) -> dict[str, Any]:
    """A Triton configuration as plain data."""
    return {"kwargs": dict(config.kwargs), "num_warps": config.num_warps, "num_stages": config.num_stages}


def autotuners(library: str) -> list[tuple[str, Any]]:
    """(name, autotuned kernel), of every module of the library that has been imported; different kernels may have the same name."""
    kind = importlib.import_module("triton.runtime.autotuner").Autotuner
    found = {}
    for module in [
        module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == library and module is not None
    ]:
        for value in list(vars(module).values()):
            while value is not None and not isinstance(value, kind):
                value = (
                    vars(value).get("fn")
                    if hasattr(type(value), "run") and hasattr(value, "__dict__")
                    else None
                )
            if value is not None:
                found[id(value)] = (str(value.base_fn.__name__), value)
    return list(found.values())
