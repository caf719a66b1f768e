"""Kernel libraries: when they can be used, where compiled kernels lie, and which configurations are tried.

When it meets a new shape, Triton compiles and times every configuration that a library lists for a kernel,
one after the other. This takes minutes for one operator. So binaries and results go to one folder for all
processes, and `tuned/` names the configurations that won.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from operators.base.files import locked
from operators.kernels.compiling import waiting

HALF = (torch.bfloat16, torch.float16)
# Package -> distribution. Their top level imports models and with them transformers, which takes seconds.
_HEAVY = {"fla": "flash-linear-attention", "mamba_ssm": "mamba-ssm"}
# Package -> packages inside that import all of their modules, where one is wanted.
_HEAVY_PARTS = {"fla": ("fla.ops",)}
# Distributions whose versions decide whether compiled kernels fit; the cache's folder is named after them.
VERSIONED = ("torch", "triton", "flash-linear-attention", "mamba-ssm")
# An environment variable: 1 lets the libraries try all configurations, which is needed to write `tuned/`.
FULL_TUNING = "FRONTRUNNER_FULL_TUNING"
# How long a process waits for another one that tunes the same kernel (s). On an H100 all kernels of a new
# shape of Gated DeltaNet took 30.
_TURN_S = 60.0


@cache  # the outcome does not change, and to look through a library's kernels takes a moment
def load(module: str) -> Any:
    """Imports a module of a kernel library and sets up its kernels' cache and tuning. Raises ImportError."""
    set_up_triton()
    library = module.partition(".")[0]
    _lighten(library)
    with _nothing_compiled(library):
        imported = importlib.import_module(module)
    narrow(library)
    _share_between_head_counts(library)
    return imported


def _lighten(library: str) -> None:
    """Makes it possible to import submodules of a library without all that its top level imports."""
    if library in sys.modules or library not in _HEAVY:
        return
    for name in (library, *_HEAVY_PARTS.get(library, ())):
        if (spec := importlib.util.find_spec(name)) is None:
            return
        sys.modules[name] = importlib.util.module_from_spec(spec)
    with suppress(PackageNotFoundError):
        sys.modules[library].__version__ = version(_HEAVY[library])  # type: ignore[attr-defined]


@contextmanager
def _nothing_compiled(library: str) -> Iterator[None]:
    """While flash-linear-attention is imported, torch.compile returns functions as they are.

    It decorates activations that are not used here. Each decoration imports PyTorch's compiler, which takes
    seconds in every process.
    """
    if library != "fla":
        yield
        return
    compiler = torch.compile
    torch.compile = _uncompiled  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compiler


def _uncompiled(function: Any = None, **_: Any) -> Any:
    return (lambda given: given) if function is None else function


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a CUDA library that computes in 16 bits cannot serve this device and dtype; None where it can."""
    if device.type != "cuda":
        return f"needs a CUDA device, got {device}"
    if dtype not in HALF:
        return f"needs {' or '.join(_plain(known) for known in HALF)}, got {_plain(dtype)}"
    return None


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def cache_folder() -> Path:
    """The folder for compiled kernels of this GPU and these versions; TRITON_CACHE_DIR overrides it."""
    words = [torch.cuda.get_device_name() if torch.cuda.is_available() else "none"]
    for name in VERSIONED:
        try:
            words.append(f"{name}-{version(name)}")
        except PackageNotFoundError:
            continue
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "frontrunner" / "kernels" / re.sub(r"[^A-Za-z0-9.+_-]+", "-", "_".join(words))


def set_up_triton() -> None:
    """On a GPU, sets how Triton compiles, where the user's environment does not.

    Binaries and tuning results are kept in `cache_folder()`. A multiplication and an addition stay one
    operation: Triton 3.9 warns that 3.10 will part them by default, and losses would depend on its version.
    """
    if torch.cuda.is_available():
        os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder()))
        os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
        os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside, backward passes add up in a fixed order where PyTorch and the kernel libraries can.

    Atomic additions come in another order each time, and after thousands of steps the losses of two equal
    trainings differ by a hundredth of a nat. The selective scan of mamba_ssm, which operator mamba uses, has
    no fixed order.
    """
    # Without this PyTorch warns of every product. On Hopper it is the default.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # `torch.use_deterministic_algorithms` does the same and imports PyTorch's compiler, which takes seconds.
    before = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    memory.fill_uninitialized_memory = (
        False  # filling costs time, and nothing here reads what it has not written
    )
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = filling


@cache
def tuned(architecture: str) -> dict[str, list[dict[str, Any]]]:
    """The configurations of each kernel that are worth trying on a GPU; empty where nothing was measured.

    architecture: of the GPU, such as `sm_90`.
    """
    path = Path(__file__).parent / "tuned" / f"{architecture}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["kernels"]) if path.exists() else {}


def narrow(library: str) -> None:
    """Removes configurations that `tuned` does not name from the kernels of an imported library.

    A kernel that `tuned` does not name keeps all of its configurations.
    """
    if not torch.cuda.is_available():
        return
    major, minor = torch.cuda.get_device_capability()
    chosen = {} if os.environ.get(FULL_TUNING) == "1" else tuned(f"sm_{major}{minor}")
    for name, autotuner in autotuners(library):
        kept = [config for config in autotuner.configs if described(config) in chosen.get(name, ())]
        if kept:
            autotuner.configs = kept
        autotuner.do_bench = _brief_bench
        if hasattr(autotuner, "check_disk_cache"):  # since Triton 3.4
            autotuner.check_disk_cache = partial(_tuned_once, autotuner)


def _brief_bench(call: Callable[[], Any], quantiles: Sequence[float]) -> Any:
    """Times a kernel for 25 ms, where Triton takes 125: hundreds of runs are enough for a choice."""
    return importlib.import_module("triton.testing").do_bench(call, warmup=5, rep=20, quantiles=quantiles)


def _tuned_once(autotuner: Any, key: Any, configs: Sequence[Any], tune: Callable[[], None]) -> bool:
    """Triton's own method `check_disk_cache`, so that all processes take the same configuration.

    Another choice adds up in another order: equal trainings would have different losses. Triton would tune
    again in two cases. Where several processes meet a kernel at the same time, each would take its own
    choice: so one tunes, and the others wait and read what it chose. And functions to call before the kernel,
    which Mamba2's backward pass has, cannot be written to a file: so they are left out of what is written.

    key: the arguments that the kernel is tuned for
    tune: times the configurations
    """
    name = f"{autotuner.base_fn.__name__}-{hashlib.sha256(str(key).encode()).hexdigest()[:16]}"
    with _alone(name):
        return _tuned(autotuner, key, configs, tune)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Inside, no other process with the same folder of kernels is in such a block of that name.

    One that waits lets go of the device, because the other one may need it. After _TURN_S it waits no longer:
    a choice of its own is better than a standstill.
    """
    with ExitStack() as held:
        with suppress(OSError):  # nothing can be kept in such a folder either
            folder = Path(os.environ["TRITON_CACHE_DIR"]) / "tuning"
            folder.mkdir(parents=True, exist_ok=True)
            file, until = folder / f"{name}.lock", time.monotonic() + _TURN_S
            while not _taken(held, file) and (left := until - time.monotonic()) > 0:
                with waiting(), locked(file, wait_s=left):
                    pass  # the other one is done, and another one may be sooner than this one
        yield


def _taken(held: ExitStack, file: Path) -> bool:
    """Whether the lock was free; it is then held."""
    try:
        held.enter_context(locked(file, wait_s=0))
    except BlockingIOError:
        return False
    return True


def _tuned(autotuner: Any, key: Any, configs: Sequence[Any], tune: Callable[[], None]) -> bool:
    plain = {str(config): copy(config) for config in configs}
    for config in plain.values():
        config.pre_hook = None

    def tune_plainly() -> None:
        tune()
        autotuner.configs_timings = {
            plain[str(config)]: timings for config, timings in autotuner.configs_timings.items()
        }

    was_cached: bool = type(autotuner).check_disk_cache(autotuner, key, list(plain.values()), tune_plainly)
    chosen = str(autotuner.cache[key])
    autotuner.cache[key] = next(config for config in configs if str(config) == chosen)
    return was_cached


def described(config: Any) -> dict[str, Any]:
    """A Triton configuration as plain data.

    maxnreg: registers that a thread may use at most; absent where the configuration sets no limit.
    """
    limit = getattr(config, "maxnreg", None)
    return {
        "kwargs": dict(config.kwargs),
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        **({} if limit is None else {"maxnreg": limit}),
    }


def autotuners(library: str) -> list[tuple[str, Any]]:
    """The autotuned kernels of a library, (name, kernel), in all modules that have been imported.

    Different kernels may have the same name.
    """
    found = _wrapped(library, importlib.import_module("triton.runtime.autotuner").Autotuner)
    return [(str(autotuner.base_fn.__name__), autotuner) for autotuner in found]


def _share_between_head_counts(library: str) -> None:
    """Makes the number of heads an argument of a library's kernels.

    flash-linear-attention compiles it in, so that every number of heads needs kernels of its own: some thirty
    for each shape of GLA, KDA or Gated DeltaNet. So does mamba-ssm in Mamba3's backward pass. It is only used
    to find where a head begins, and how many there are. The results are the same to the last bit. The fastest
    configuration for one number of heads is used for the others too.
    """
    counts = _HEAD_COUNTS.get(library, ())
    if not counts or not torch.cuda.is_available():
        return
    for _, autotuner in autotuners(library):
        autotuner.keys = [key for key in autotuner.keys if key not in counts]
    for function in _wrapped(library, importlib.import_module("triton.runtime.jit").JITFunction):
        for parameter in function.params:
            # After a kernel's first launch, how it takes its arguments is settled.
            if parameter.name in counts and not function.device_caches:
                vars(parameter)["is_constexpr"] = False
                parameter.do_not_specialize = True


# Of queries and keys, and of values; and how many heads share keys.
_HEAD_COUNTS = {"fla": ("H", "HV"), "mamba_ssm": ("GQA_RATIO",)}


def _wrapped(library: str, kind: type) -> list[Any]:
    """The objects of a kind that the imported modules of a library hold, or that others there wrap."""
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
                found[id(value)] = value
    return list(found.values())
